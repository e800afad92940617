"""The pages: HTML from the server, one stylesheet, one page of script, nothing from another host.

`page.py` is what every page stands on: who looks, in which language and theme, and how errors and redirects are shown.
The modules beside it are the pages. Templates are Jinja2's, in `templates/`; what they load is in `static/`, served by
`assets.py` under names that change with the contents.
"""
