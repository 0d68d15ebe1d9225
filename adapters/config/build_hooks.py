"""Hooks of one model, built from their sections.

``runtime/hook_actions.py`` lists the files that a new kind of action touches.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import TypeAlias

from ...runtime.container import ContainerEngine
from ...runtime.hook_actions import HookAction, HttpAction, RunAction
from ...runtime.pid_placeholder import fill_pid
from ...runtime.ports import Endpoint, HttpCall
from ...runtime.spec import Hook, OnError
from .schema.container import ContainerSection
from .schema.fields import CommandLine
from .schema.hooks import HookSection, HttpSection, SettleSection
from .url import url_problem

Location: TypeAlias = tuple[int | str, ...]

#: Hook points at which the container does not exist.
_WITHOUT_PROCESS = frozenset({"beforeStart", "afterStop", "onFailure"})

#: Shell script that succeeds when each GPU that the model may see has less than $1 MiB in use, and
#: where there is no nvidia-smi.
_GPU_BELOW = """
command -v nvidia-smi >/dev/null || exit 0
used=$(nvidia-smi ${CUDA_VISIBLE_DEVICES:+-i "$CUDA_VISIBLE_DEVICES"} \\
    --query-gpu=memory.used --format=csv,noheader,nounits) || exit 1
for each in $used; do
    [ "$each" -lt "$1" ] || exit 1
done
"""


_SOMEWHERE = Endpoint("localhost", 80, "node")

#: Shell script: $1 is the pull policy, $2 the image, and the rest the engine.
_PULL = """
policy=$1 image=$2
shift 2
if [ "$policy" = missing ]; then
    "$@" image inspect --format found "$image" >/dev/null 2>&1 && exit 0
    echo "[swapchart] the image $image is not on this machine; pulling it"
fi
"$@" pull "$image"
"""


class HookBuilder:
    """Builds the hooks of one model.

    Args:
        split: (command, location) -> argv; reports commands that cannot be split.
        error: (location, message) -> None; reports a problem.
        timeout_s: Limit of each attempt unless the hook has its own; seconds > 0.
        has_container: The model runs in a container.
    """

    def __init__(
        self,
        split: Callable[[CommandLine, Location], tuple[str, ...]],
        error: Callable[[Location, str], None],
        timeout_s: float,
        *,
        has_container: bool,
    ) -> None:
        self._split, self._error, self._timeout_s = split, error, timeout_s
        self._has_container = has_container

    def build(
        self, sections: tuple[HookSection, ...], loc: Location, on_error: OnError = "warn"
    ) -> tuple[Hook, ...]:
        """Return the hooks of one point.

        Args:
            sections: The hooks as written.
            loc: Location of their list within the model.
            on_error: Value for hooks without `onError`.
        """
        return tuple(
            Hook(
                action=self._action(section, (*loc, index)),
                timeout_s=section.timeout or self._timeout_s,
                retries=section.retries,
                delay_s=section.delay,
                on_error=section.on_error if "on_error" in section.model_fields_set else on_error,
            )
            for index, section in enumerate(sections)
        )

    def build_settle(self, section: SettleSection | None) -> Hook | None:
        """Return the hook that succeeds once the memory of the model is free; None if not given."""
        if section is None:
            return None
        if section.run is not None:
            argv = self._split(section.run, ("settle", "run"))
        else:
            argv = ("/bin/sh", "-c", _GPU_BELOW, "sh", str(section.gpu_below))
        return Hook(action=RunAction(argv=argv), timeout_s=section.timeout)

    def build_pull(self, section: ContainerSection, engine: ContainerEngine) -> Hook | None:
        """Return the hook that pulls the image before a start; None for `pull: never`."""
        if section.pull == "never":
            return None
        words = ("/bin/sh", "-c", _PULL, "sh", section.pull, section.image, *engine.command)
        action = RunAction(argv=words, title=f"pull {section.image}")
        return Hook(action=action, timeout_s=section.pull_timeout, on_error="fail")

    def _action(self, section: HookSection, loc: Location) -> HookAction:
        if section.http is not None:
            return HttpAction(call=self._call(section.http, (*loc, "http")))
        assert section.run is not None  # the section has checked it
        is_inside = section.place == "container"
        if is_inside:
            self._check_inside(loc)
        if section.shell:
            text = section.run if isinstance(section.run, str) else shlex.join(section.run)
            return RunAction(argv=("/bin/sh", "-c", text), is_inside=is_inside)
        return RunAction(argv=self._split(section.run, (*loc, "run")), is_inside=is_inside)

    def _check_inside(self, loc: Location) -> None:
        if not self._has_container:
            self._error((*loc, "in"), "expected host, since the model has no `container`")
        elif loc[0] in _WITHOUT_PROCESS:
            self._error((*loc, "in"), f"expected host, since no container exists at {loc[0]}")

    def _call(self, section: HttpSection, loc: Location) -> HttpCall:
        problem = url_problem(_SOMEWHERE.fill(fill_pid(section.url, 1)))
        if problem:
            self._error((*loc, "url"), problem)
        headers = {name: value.get_secret_value() for name, value in section.headers.items()}
        body = None if section.body is None else section.body.encode()
        if any(mark in value for value in headers.values() for mark in "\r\n"):
            self._error((*loc, "headers"), "expected header values without line breaks")
        if section.json_body is not None:
            body = self._json(section.json_body, (*loc, "json"))
            if not any(name.lower() == "content-type" for name in headers):
                headers["Content-Type"] = "application/json"
        return HttpCall(
            method=section.method.upper(),
            url="http://refused" if problem else section.url,  # never called
            headers=headers,
            body=body,
            expect=frozenset(section.expect),
        )

    def _json(self, value: object, loc: Location) -> bytes:
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:
            self._error(loc, f"expected what JSON can say: {error}")
            return b""
