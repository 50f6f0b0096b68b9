from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PullStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PULL_RESOLVING: _ClassVar[PullStage]
    PULL_TRANSFERRING: _ClassVar[PullStage]
    PULL_RECORDING: _ClassVar[PullStage]
    PULL_DONE: _ClassVar[PullStage]
    PULL_FAILED: _ClassVar[PullStage]

class LayerStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAYER_WAITING: _ClassVar[LayerStage]
    LAYER_DOWNLOADING: _ClassVar[LayerStage]
    LAYER_DOWNLOADED: _ClassVar[LayerStage]
    LAYER_UNPACKING: _ClassVar[LayerStage]
    LAYER_DONE: _ClassVar[LayerStage]
    LAYER_PRESENT: _ClassVar[LayerStage]
PULL_RESOLVING: PullStage
PULL_TRANSFERRING: PullStage
PULL_RECORDING: PullStage
PULL_DONE: PullStage
PULL_FAILED: PullStage
LAYER_WAITING: LayerStage
LAYER_DOWNLOADING: LayerStage
LAYER_DOWNLOADED: LayerStage
LAYER_UNPACKING: LayerStage
LAYER_DONE: LayerStage
LAYER_PRESENT: LayerStage

class WatchPullsRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: str
    def __init__(self, image: _Optional[str] = ...) -> None: ...

class PullProgress(_message.Message):
    __slots__ = ("image", "stage", "started_at", "layers", "error", "image_ref", "id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_REF_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    image: str
    stage: PullStage
    started_at: int
    layers: _containers.RepeatedCompositeFieldContainer[LayerProgress]
    error: str
    image_ref: str
    id: int
    def __init__(self, image: _Optional[str] = ..., stage: _Optional[_Union[PullStage, str]] = ..., started_at: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[LayerProgress, _Mapping]]] = ..., error: _Optional[str] = ..., image_ref: _Optional[str] = ..., id: _Optional[int] = ...) -> None: ...

class LayerProgress(_message.Message):
    __slots__ = ("digest", "stage", "bytes", "total")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    stage: LayerStage
    bytes: int
    total: int
    def __init__(self, digest: _Optional[str] = ..., stage: _Optional[_Union[LayerStage, str]] = ..., bytes: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ExplainBlobRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class ExplainBlobResponse(_message.Message):
    __slots__ = ("digest", "kind", "bytes", "path", "keepers")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    KEEPERS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    kind: str
    bytes: int
    path: str
    keepers: _containers.RepeatedCompositeFieldContainer[Keeper]
    def __init__(self, digest: _Optional[str] = ..., kind: _Optional[str] = ..., bytes: _Optional[int] = ..., path: _Optional[str] = ..., keepers: _Optional[_Iterable[_Union[Keeper, _Mapping]]] = ...) -> None: ...

class Keeper(_message.Message):
    __slots__ = ("kind", "name", "how")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    how: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., how: _Optional[str] = ...) -> None: ...

class PruneImagesRequest(_message.Message):
    __slots__ = ("dry_run", "untagged_only")
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    UNTAGGED_ONLY_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    untagged_only: bool
    def __init__(self, dry_run: _Optional[bool] = ..., untagged_only: _Optional[bool] = ...) -> None: ...

class PruneImagesResponse(_message.Message):
    __slots__ = ("images", "bytes", "inodes", "blobs")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[PrunedImage]
    bytes: int
    inodes: int
    blobs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, images: _Optional[_Iterable[_Union[PrunedImage, _Mapping]]] = ..., bytes: _Optional[int] = ..., inodes: _Optional[int] = ..., blobs: _Optional[_Iterable[str]] = ...) -> None: ...

class PrunedImage(_message.Message):
    __slots__ = ("id", "names", "bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    names: _containers.RepeatedScalarFieldContainer[str]
    bytes: int
    def __init__(self, id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., bytes: _Optional[int] = ...) -> None: ...

class ImportImageRequest(_message.Message):
    __slots__ = ("source", "reference", "config")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    source: str
    reference: str
    config: bytes
    def __init__(self, source: _Optional[str] = ..., reference: _Optional[str] = ..., config: _Optional[bytes] = ...) -> None: ...

class ImportImageResponse(_message.Message):
    __slots__ = ("image_ref", "image_refs")
    IMAGE_REF_FIELD_NUMBER: _ClassVar[int]
    IMAGE_REFS_FIELD_NUMBER: _ClassVar[int]
    image_ref: str
    image_refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, image_ref: _Optional[str] = ..., image_refs: _Optional[_Iterable[str]] = ...) -> None: ...

class ExportImageRequest(_message.Message):
    __slots__ = ("image", "target")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    image: str
    target: str
    def __init__(self, image: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class ExportImageResponse(_message.Message):
    __slots__ = ("image_ref", "bytes")
    IMAGE_REF_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    image_ref: str
    bytes: int
    def __init__(self, image_ref: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class WatchStepsRequest(_message.Message):
    __slots__ = ("trace_id",)
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    def __init__(self, trace_id: _Optional[str] = ...) -> None: ...

class StepEvent(_message.Message):
    __slots__ = ("id", "parent_id", "name", "subject", "began_at", "started", "ended", "error", "attributes", "is_call")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    IS_CALL_FIELD_NUMBER: _ClassVar[int]
    id: str
    parent_id: str
    name: str
    subject: str
    began_at: int
    started: int
    ended: int
    error: str
    attributes: _containers.ScalarMap[str, str]
    is_call: bool
    def __init__(self, id: _Optional[str] = ..., parent_id: _Optional[str] = ..., name: _Optional[str] = ..., subject: _Optional[str] = ..., began_at: _Optional[int] = ..., started: _Optional[int] = ..., ended: _Optional[int] = ..., error: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., is_call: _Optional[bool] = ...) -> None: ...

class ListOperationsRequest(_message.Message):
    __slots__ = ("reading",)
    READING_FIELD_NUMBER: _ClassVar[int]
    reading: bool
    def __init__(self, reading: _Optional[bool] = ...) -> None: ...

class ListOperationsResponse(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("rpc", "subject", "pod_sandbox_id", "container_id", "image", "pod_namespace", "pod_name", "container_name", "started_at", "stages", "client_gone", "seconds_left")
    RPC_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    POD_SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    POD_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_NAME_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_GONE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    rpc: str
    subject: str
    pod_sandbox_id: str
    container_id: str
    image: str
    pod_namespace: str
    pod_name: str
    container_name: str
    started_at: int
    stages: _containers.RepeatedCompositeFieldContainer[OperationStage]
    client_gone: bool
    seconds_left: float
    def __init__(self, rpc: _Optional[str] = ..., subject: _Optional[str] = ..., pod_sandbox_id: _Optional[str] = ..., container_id: _Optional[str] = ..., image: _Optional[str] = ..., pod_namespace: _Optional[str] = ..., pod_name: _Optional[str] = ..., container_name: _Optional[str] = ..., started_at: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[OperationStage, _Mapping]]] = ..., client_gone: _Optional[bool] = ..., seconds_left: _Optional[float] = ...) -> None: ...

class OperationStage(_message.Message):
    __slots__ = ("name", "subject", "started_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    subject: str
    started_at: int
    def __init__(self, name: _Optional[str] = ..., subject: _Optional[str] = ..., started_at: _Optional[int] = ...) -> None: ...
