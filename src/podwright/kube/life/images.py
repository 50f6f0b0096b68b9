"""The images of a pod: there already, or pulled by the policy, with the back-off of those that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from podwright.api import Cri
from podwright.clock import Clock
from podwright.errors import InvalidArgument, PodwrightError
from podwright.images import references
from podwright.kube.failures import ImageError
from podwright.kube.life import pull_secrets, words
from podwright.kube.life.backoff import Backoff
from podwright.kube.life.events import Recorder
from podwright.kube.manifests.manifest import Manifest
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

NAMED = {
    "RegistryUnavailable": "registry is unavailable",
    "SignatureValidationFailed": "signature validation failed",
}
"""What a runtime's error may begin with, to be the reason itself (the CRI's errors of PullImage)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that something of a pod needs."""

    reference: str
    """As the manifest has it."""
    policy: str
    """Always, IfNotPresent or Never."""
    place: str
    """Of its events: the container's; "" for a volume's."""


class Images:
    """One pod's: its events, its back-off. That several pods pull the same image is the runtime's affair."""

    def __init__(self, runtime: Cri, clock: Clock, recorder: Recorder, backoff: Backoff) -> None:
        self._runtime = runtime
        self._clock = clock
        self._recorder = recorder
        self._backoff = backoff
        self._errors: dict[str, str] = {}
        """What the last pull of an image failed with."""

    async def ensure(
        self, manifest: Manifest, wanted: Wanted, sandbox_config: cri.PodSandboxConfig
    ) -> cri.Image:
        """The image, pulled if need be. ImageError with the reason of the container's waiting state."""
        name = self._full(wanted)
        spec = cri.ImageSpec(image=name, annotations=sandbox_config.annotations)
        present = await self._status(wanted, spec)
        if wanted.policy == "Never" or (wanted.policy != "Always" and present is not None):
            return self._without_pull(wanted, present)
        key = f"{manifest.uid}_{wanted.reference}"
        if self._backoff.within(key) > 0:
            message = f'Back-off pulling image "{wanted.reference}"'
            self._recorder.normal("BackOff", wanted.place, message)
            last = self._errors.get(wanted.reference)
            raise ImageError("ImagePullBackOff", f"{message}: {last}" if last else message)
        self._recorder.normal("Pulling", wanted.place, f'Pulling image "{wanted.reference}"')
        begun = self._clock.monotonic()
        try:
            with step("pull image", name):
                reference = await self._pull(manifest, spec, sandbox_config)
        except PodwrightError as error:
            self._backoff.next(key, self._clock.now())
            self._failed(wanted, error)
        image = await self._status(wanted, cri.ImageSpec(image=reference)) or await self._status(wanted, spec)
        if image is None:
            self._failed(wanted, PodwrightError("it was pulled and is gone again"))
        took = words.duration(self._clock.monotonic() - begun)
        self._recorder.normal(
            "Pulled", wanted.place,
            f'Successfully pulled image "{wanted.reference}" in {took} ({took} including waiting).'
            f" Image size: {image.size} bytes.",
        )  # fmt: skip
        self._errors.pop(wanted.reference, None)
        self._backoff.forget(key)
        return image

    def _without_pull(self, wanted: Wanted, present: cri.Image | None) -> cri.Image:
        if present is not None:
            self._recorder.normal(
                "Pulled", wanted.place,
                f'Container image "{wanted.reference}" already present on machine'
                " and can be accessed by the pod",
            )  # fmt: skip
            return present
        message = f'Container image "{wanted.reference}" is not present with pull policy of Never'
        self._recorder.warning("ErrImageNeverPull", wanted.place, message)
        raise ImageError("ErrImageNeverPull", message)

    def _full(self, wanted: Wanted) -> str:
        """With the tag "latest" where there is neither tag nor digest; the rest as it was written."""
        try:
            references.parse(wanted.reference)
        except InvalidArgument:
            name = wanted.reference.partition("@")[0].partition("/")[2] or wanted.reference
            upper = f": repository name ({name.partition(':')[0]}) must be lowercase"
            message = (
                f'Failed to apply default image tag "{wanted.reference}": '
                f'couldn\'t parse image name "{wanted.reference}": invalid reference format'
                + (upper if _is_upper(wanted.reference) else "")
            )
            self._recorder.warning("InspectFailed", wanted.place, message)
            raise ImageError("InvalidImageName", message) from None
        last = wanted.reference.rsplit("/", 1)[-1]
        return wanted.reference if "@" in last or ":" in last else f"{wanted.reference}:latest"

    async def _status(self, wanted: Wanted, spec: cri.ImageSpec) -> cri.Image | None:
        try:
            answer = await self._runtime.image_status(cri.ImageStatusRequest(image=spec))
        except PodwrightError as error:
            message = f'Failed to inspect image "{wanted.reference}": {words.rpc(error)}'
            self._recorder.warning("InspectFailed", wanted.place, message)
            raise ImageError("ImageInspectError", message) from error
        return answer.image if answer.HasField("image") else None

    async def _pull(
        self, manifest: Manifest, spec: cri.ImageSpec, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """With one credential after the other. All errors count."""
        request = cri.PullImageRequest(image=spec, sandbox_config=sandbox_config)
        failed: dict[str, PodwrightError] = {}
        found = pull_secrets.credentials(manifest, spec.image)
        for auth in found or [cri.AuthConfig()]:
            if found:
                request.auth.CopyFrom(auth)
            try:
                return (await self._runtime.pull_image(request)).image_ref
            except PodwrightError as error:
                failed[words.pull(error)] = error
        if len(failed) == 1:
            raise next(iter(failed.values()))
        raise PodwrightError(f"[{', '.join(failed)}]")

    def _failed(self, wanted: Wanted, error: PodwrightError) -> NoReturn:
        text = words.pull(error)
        self._recorder.warning("Failed", wanted.place, f'Failed to pull image "{wanted.reference}": {text}')
        reason, message = "ErrImagePull", text
        for one, what in NAMED.items():
            if text.startswith(one):
                reason = one
                message = f"image pull failed for {wanted.reference} because the {what}"
                message += text.removeprefix(one)
        self._errors[wanted.reference] = f"{reason}: {message}"
        raise ImageError(reason, message) from error


def _is_upper(reference: str) -> bool:
    """Whether the only fault of a reference is that its path has capital letters."""
    host, slash, path = reference.partition("/")
    try:
        references.parse(f"{host}{slash}{path.lower()}" if slash else host.lower())
    except InvalidArgument:
        return False
    return True
