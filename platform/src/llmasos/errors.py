"""Every error that the host answers with, as one tree.

Which to raise: the class says who must act, the message says how.

- `Denied`: a person must consent or an author must declare. `QuotaExceeded`: wait, or an operator raises a limit.
- `Invalid`: the caller must send something else. `NotFound`, `Conflict`: of the thing named.
- `Unavailable`: try again, or an operator must mend something. `TimedOut`, `Cancelled`: the run ended early.

An error class's docstring is its default message, written to the person who reads it, and `zh` says the same in
Chinese; a message of its own takes its Chinese beside it, as `zh=`. `tag` is the case of the component contract,
`code` is what problem documents carry, stable for programs, `exit_code` what the command returns.
"""

from __future__ import annotations

from typing import ClassVar

from llmasos.i18n import Message, render


class LlmasosError(Exception):
    """Something failed that has no better name; run `llmasos doctor`."""

    zh: ClassVar[str] = "发生了未归类的错误：请运行 `llmasos doctor`。"
    tag: ClassVar[str] = "unavailable"
    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, zh: str = "") -> None:
        if isinstance(message, Message) and not zh:
            zh = render(message, "zh")
        self.message = message or " ".join((type(self).__doc__ or self.code).split())
        self.message_zh = zh or message or self.zh
        """The same in Chinese; words that are an app's or a provider's own stay as they were said."""
        super().__init__(self.message)


class Denied(LlmasosError):
    """The installation does not allow this."""

    zh = "此安装不允许这样做。"
    tag = "denied"
    code = "denied"
    status = 403
    exit_code = 3


class Unauthenticated(Denied):
    """A valid token is needed: make one with `llmasos tokens create`."""

    zh = "需要有效的令牌：请用 `llmasos tokens create` 创建。"
    code = "unauthenticated"
    status = 401


class PermissionNotDeclared(Denied):
    """The app used a capability that its manifest does not declare."""

    zh = "应用使用了清单中未声明的能力。"
    code = "permission-not-declared"


class PermissionNotGranted(Denied):
    """The app's manifest declares this capability, but the installation does not grant it."""

    zh = "应用的清单声明了此能力，但此安装未授予。"
    code = "permission-not-granted"


class ConsentNeeded(Denied):
    """The app asks for permissions that nobody has consented to yet."""

    zh = "应用请求的权限尚未得到任何人的同意。"
    code = "consent-needed"


class QuotaExceeded(LlmasosError):
    """A quota is used up; see `llmasos usage`, and raise it with `llmasos quota set`."""

    zh = "配额已用完：用 `llmasos usage` 查看，用 `llmasos quota set` 调高。"
    tag = "quota"
    code = "quota-exceeded"
    status = 429
    exit_code = 4


class Invalid(LlmasosError):
    """The input is not valid."""

    zh = "输入无效。"
    tag = "invalid"
    code = "invalid"
    status = 422


class ManifestRejected(Invalid):
    """The manifest llmapp.toml is not valid."""

    zh = "清单 llmapp.toml 无效。"
    code = "manifest-rejected"


class BundleRejected(Invalid):
    """The bundle is not safe or not complete."""

    zh = "应用包不安全或不完整。"
    code = "bundle-rejected"


class ComponentRejected(Invalid):
    """The component does not fit its manifest, or is no component."""

    zh = "该组件与其清单不符，或者不是组件。"
    code = "component-rejected"


class AppFailed(Invalid):
    """The app ended with an error of its own."""

    zh = "应用自身出错并结束。"
    code = "app-failed"


class ResourceLimit(Invalid):
    """The app used more memory, compute or output than it may."""

    zh = "应用使用的内存、计算量或输出超过了上限。"
    code = "resource-limit"


class NotFound(LlmasosError):
    """There is no such thing, or you may not see it."""

    zh = "不存在，或者你无权查看。"
    tag = "not-found"
    code = "not-found"
    status = 404
    exit_code = 5


class Conflict(LlmasosError):
    """Somebody else changed it first."""

    zh = "已被他人先行更改。"
    tag = "conflict"
    code = "conflict"
    status = 409


class Unavailable(LlmasosError):
    """What this needs is not available now."""

    zh = "所需的服务暂不可用。"
    code = "unavailable"
    status = 503


class DiskFull(Unavailable):
    """The disk is full: nothing was changed. Free some space in the home (LLMASOS_HOME) and run it again."""

    code = "disk-full"
    zh = "磁盘已满，未做任何改动：请在主目录（LLMASOS_HOME）所在磁盘腾出空间后重试。"


class CannotConfine(Unavailable):
    """This system cannot confine an app as it must be, so it is not started; see `llmasos doctor`."""

    zh = "此系统无法按要求隔离应用，因此不会启动它；参见 `llmasos doctor`。"
    code = "cannot-confine"


class RunnerDied(Unavailable):
    """The process that ran the app died; the invocation was settled and nothing else was touched."""

    zh = "运行此应用的进程意外结束；本次调用已结算，其他均未受影响。"
    code = "runner-died"


class ModelUnavailable(Unavailable):
    """No model answered."""

    zh = "没有模型作答。"
    code = "model-unavailable"


class TimedOut(LlmasosError):
    """It took longer than it may."""

    zh = "超过了允许的时间。"
    tag = "timeout"
    code = "timeout"
    status = 504


class Cancelled(LlmasosError):
    """The caller cancelled it."""

    zh = "调用方已取消。"
    tag = "cancelled"
    code = "cancelled"
    status = 499


BY_TAG: dict[str, type[LlmasosError]] = {
    cls.tag: cls for cls in (Denied, QuotaExceeded, Invalid, Unavailable, TimedOut, Cancelled, NotFound, Conflict)
}
