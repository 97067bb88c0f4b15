"""Every engine of the comparison, as data, and where `python -m benchmarks.peers` puts it.

<root>/llama.cpp/build/bin      its programs
<root>/openvino, ctranslate2    environments
<root>/cvc5                     the environment of another prover
<root>/models                   the one model in every peer's format
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

MODEL = "smollm2-135m-instruct"
# A source of a variant: the float32 folder of our own converter, or the GGUF as it is packaged.
FOLDER = "folder"
PACKAGED = "packaged"


class Precision(StrEnum):
    """How wide the weights of the linear layers are while they are multiplied. Engines are held
    against those of the same width."""

    FLOAT32 = "float32"
    EIGHT_BIT = "8 bit"
    FOUR_BIT = "4 bit"


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine with weights of one kind.

    `weights` is what the engine itself calls them; `source` is FOLDER, PACKAGED, or a file or
    folder below `models`; `environment` a folder of `root`, or "" for the project's own. Those with
    `quick` take part in the short run too; `skips` names cells that are too dear for what they say.
    """

    name: str
    precision: Precision
    module: str
    source: str
    weights: str = ""
    environment: str = ""
    quick: bool = False
    ours: bool = False
    skips: tuple[str, ...] = ()


VARIANTS: tuple[Variant, ...] = (
    Variant("ours float32", Precision.FLOAT32, "ours", FOLDER, "float32", quick=True, ours=True),
    Variant("ours int8", Precision.EIGHT_BIT, "ours", FOLDER, "int8", quick=True, ours=True),
    Variant("transformers float32", Precision.FLOAT32, "with_transformers", FOLDER, quick=True),
    Variant("llama.cpp F32", Precision.FLOAT32, "llama_cpp", "F32.gguf"),
    Variant("llama.cpp Q8_0", Precision.EIGHT_BIT, "llama_cpp", "Q8_0.gguf", quick=True),
    Variant(
        "CTranslate2 int8",
        Precision.EIGHT_BIT,
        "with_ctranslate2",
        "ctranslate2-int8",
        "int8",
        "ctranslate2",
        quick=True,
    ),
    Variant(
        "OpenVINO Q8_0",
        Precision.EIGHT_BIT,
        "with_openvino",
        "Q8_0.gguf",
        environment="openvino",
        quick=True,
    ),
    Variant(
        "OpenVINO Q4_1",
        Precision.FOUR_BIT,
        "with_openvino",
        PACKAGED,
        environment="openvino",
    ),
    Variant("llama.cpp Q4_1", Precision.FOUR_BIT, "llama_cpp", PACKAGED, quick=True),
    Variant(
        "llama.cpp Q4_0",
        Precision.FOUR_BIT,
        "llama_cpp",
        "Q4_0.gguf",
        skips=("prefill_2048", "decode_32"),
    ),
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the peers are, below `root`."""

    root: Path

    @classmethod
    def standard(cls) -> Places:
        """THOTH_PEERS, else a folder of the user's cache."""
        return cls(Path(os.environ.get("THOTH_PEERS", "~/.cache/thoth/peers")).expanduser())

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def llama_cpp(self) -> Path:
        return self.root / "llama.cpp"

    @property
    def programs(self) -> Path:
        return self.llama_cpp / "build" / "bin"

    def environment(self, name: str) -> Path:
        return self.root / name

    def python(self, environment: str) -> Path:
        """The interpreter of an environment of `root`; of the project's own for ""."""
        if not environment:
            return Path(sys.executable)
        return self.environment(environment) / "bin" / "python"

    def absent(self, variant: Variant) -> list[Path]:
        """What has not been installed for it."""
        needed = []
        if variant.environment:
            needed.append(self.python(variant.environment))
        if variant.module == "llama_cpp":
            needed.append(self.programs / "llama-bench")
        if variant.source not in (FOLDER, PACKAGED):
            needed.append(self.models / variant.source)
        return [path for path in needed if not path.exists()]
