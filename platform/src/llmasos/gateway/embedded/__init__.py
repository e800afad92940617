"""The models that the host runs itself.

weights.py fetches and checks their files · child.py is the process that runs them · process.py supervises it ·
shapes.py turns tools and schemas into what a small model can follow · provider.py is what litellm calls · local.py
puts these together for the gateway · curated.py and hub.py fetch better models.
"""
