"""What the fake engine would make of a request: the program, and the parts of the scenario that count for it.

Nothing is drawn and nothing counts: a distribution is shown as it stands in the scenario.
"""

from __future__ import annotations

from collections.abc import Sequence

from podwright.engines.base import Container, Explanation, Image, Json, Sandbox
from podwright.engines.fake import documents, registry
from podwright.engines.fake.command import explained
from podwright.engines.fake.faults import Fault
from podwright.engines.fake.programs import find, idle_seconds
from podwright.engines.fake.refusals import check_container, check_sandbox
from podwright.engines.fake.scenario import ContainerScript, Scenario
from podwright.engines.fake.starting import missing
from podwright.engines.fake.subject import Subject
from podwright.errors import InvalidArgument, NotFound
from podwright.images import references

WHAT = "fake scenario"
_ENDLESS = float("inf")


class Plan:
    """Implements engines.base.Planner for one scenario."""

    name = "fake"

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def check_handler(self, name: str) -> None:
        handlers = self._scenario.handlers
        if name and name not in handlers:
            raise InvalidArgument(
                "runtime_handler", f"no handler {name!r} is configured: {', '.join(sorted(handlers))}"
            )

    async def recursive_read_only(self, handler: str) -> bool:
        found = self._scenario.handlers.get(handler or self._scenario.default_handler)
        return found is None or found.recursive_read_only

    def runs_here(self, handler: str) -> bool:
        return False

    async def find_image(self, reference: str) -> Image | None:
        """What a registry of the scenario has; it is no matter whether it was pulled."""
        source = references.parse_local(reference) or references.parse(reference)
        try:
            offer = registry.offered(self._scenario.images, source)
        except NotFound:
            return None
        return Image(offer.id, tuple(offer.names), (), offer.size, offer.config, offer.pinned)

    async def explain_container(self, container: Container, to_come: Sequence[str] = ()) -> Explanation:
        handler = container.sandbox.handler
        check_container(container, recursive_read_only=await self.recursive_read_only(handler))
        subject = Subject.of_container(container)
        script = self._scenario.script(subject)
        process, origins = explained(container)
        if script.program is not None:
            process["args"] = list(script.program)
            origins["process.args"] = f"scenario: {self._place(script)}.program"
        ends, why = self._end(script, process["args"])
        document: dict[str, Json] = {"process": process, "ends": ends}
        origins["ends"] = why
        tree = documents.to_tree(script)
        for key in ("logs", "exec", "ignore", "stopping", "start_error", "stats"):
            if key in tree:
                document[key] = tree[key]
                origins[key] = f"scenario: {self._place(script)}.{key}"
        self._add_faults(document, origins, subject)
        return Explanation(document, origins, (), WHAT)

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        """The script of the pod, if it has one or a fault concerns it."""
        check_sandbox(sandbox)
        subject = Subject.of_sandbox(sandbox)
        script = self._scenario.pod_script(subject)
        document: dict[str, Json] = {}
        origins: dict[str, str] = {}
        if script in self._scenario.pods:
            place = f"pods[{self._scenario.pods.index(script)}]"
            for key, value in documents.to_tree(script).items():
                if key != "match":
                    document[key], origins[key] = value, f"scenario: {place}.{key}"
        self._add_faults(document, origins, subject)
        return Explanation(document, origins, (), WHAT) if document else None

    def _end(self, script: ContainerScript, argv: Sequence[str]) -> tuple[Json, str]:
        """How its program ends, and why."""
        if script.exit is not None:
            return documents.to_tree(script.exit), f"scenario: {self._place(script)}.exit"
        if find(argv[0]) is not None:
            seconds = idle_seconds(argv)
            if seconds is None:
                return "when its program does", f"default: {argv[0]} is a built-in program"
            forever = seconds == _ENDLESS
            ends = "when a signal ends it" if forever else {"after": f"{seconds:g}s", "code": 0}
            return ends, f"default: {argv[0]} is a built-in program that only waits"
        if self._scenario.unknown_programs == "fail":
            return f"it cannot start: {missing(argv[0])}", "scenario: unknown_programs"
        return "when a signal ends it", f"default: {argv[0]} is no built-in program"

    def _place(self, script: ContainerScript) -> str:
        return f"containers[{self._scenario.containers.index(script)}]"

    def _add_faults(self, document: dict[str, Json], origins: dict[str, str], subject: Subject) -> None:
        found = {
            place: fault for place, fault in enumerate(self._scenario.faults) if _concerns(fault, subject)
        }
        if found:
            document["faults"] = [documents.to_tree(fault) for fault in found.values()]
            origins["faults"] = "scenario: " + ", ".join(f"faults[{place}]" for place in found)


def _concerns(fault: Fault, subject: Subject) -> bool:
    """Whether it may strike what is done to `subject`; ids are not known before."""
    return not fault.match.id and fault.match.fits(subject)
