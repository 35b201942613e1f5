# SPDX-License-Identifier: Apache-2.0
"""Weights to train: a folder as transformers writes it, or one made, once, of a model file (GGUF) in the cache."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from agentgym.errors import NotFoundError, UsageError
from agentgym.policies import modelfiles

NEEDED = {"torch": "torch", "transformers": "transformers", "trl": "trl"}


def need(*packages: str) -> None:
    """Refuses where packages are missing.

    Raises:
        UsageError: which, and the command that installs them.
    """
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here:"
            " pip install 'agentgym-harness[trl]'"
        )


def weights(model: str) -> Path:
    """The folder of weights that ``hf:FOLDER``, ``local:NAME`` or ``gguf:FILE`` names.

    A GGUF file is unpacked to float32 weights (four to seven times its size) beside it in the cache at the first call.

    Raises:
        UsageError: a model that cannot be trained here, or a package is missing.
        NotFoundError: there is no such folder or file.
        ModelFileError: the file is not in the cache and cannot be fetched.
    """
    kind, _, name = model.partition(":")
    if kind == "hf":
        folder = Path(name).expanduser().absolute()
        if not name or not (folder / "config.json").is_file():
            raise NotFoundError(
                f"{model}: expected a folder with config.json, weights and tokenizer, as save_pretrained writes it"
            )
        return folder
    if kind not in ("local", "gguf") or not name:
        raise UsageError(
            f"{model} cannot be trained: name weights, as hf:FOLDER, or a model file, as local:smollm2 or gguf:FILE"
        )
    if kind == "local" and "/" not in name:
        file = modelfiles.fetch(name)
    else:
        file = Path(name).expanduser().absolute()
        if not file.is_file():
            raise NotFoundError(f"{model}: there is no such file")
    return _unpacked(file)


def _unpacked(file: Path) -> Path:
    folder = modelfiles.cache_dir() / "weights" / f"{file.stem}-{modelfiles.file_sha256(file)[:12]}"
    if (folder / "config.json").is_file():
        return folder
    need("torch", "transformers", "gguf")
    import transformers

    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="fetch-", dir=folder.parent))
    try:
        how: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
        transformers.AutoTokenizer.from_pretrained(file.parent, **how).save_pretrained(fresh)
        packed = getattr(transformers, "GgufConfig", None)  # newer versions keep the blocks packed unless told not to
        if packed is not None:
            how["quantization_config"] = packed(dequantize=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **how)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(fresh)
        try:
            os.rename(fresh, folder)
        except OSError:  # another process was faster
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder
