"""From program text to bytecode, through a child that ends and a cache that only its owner may write."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringtape.recorder import program
from ringtape.recorder.btf import VMLINUX, KernelTypes, read_kernel_types
from ringtape.recorder.program import MapSpec
from ringtape.schemas.errors import RecordingError
from ringtape.version import VERSION

CHILD = Path(__file__).with_name("compiler_child.py")
PACKAGES = ("/usr/lib/python3/dist-packages/bcc", "/usr/lib/python3*/site-packages/bcc", "/usr/lib64/python3*/site-packages/bcc")
"""Where distributions put BCC: Debian and Ubuntu; Arch and openSUSE; Fedora."""
PYTHONS = ("/usr/bin/python3", "/bin/python3")
"""The distribution's own interpreter; any other may not see its packages."""


ENTRY = {"text", "bcc", "functions", "offsets", "tracepoints", "iterator", "variables", "file_iterator"}
"""Keys of an entry of the cache."""


@dataclass(frozen=True)
class Bytecode:
    """Programs ready to be loaded into this kernel.

    ``sizes`` maps each map to its key and value size in bytes, ``code`` each function to its instructions, ``probes``
    each program to its tracepoint, ``tracepoints``, ``iterator`` and ``file_iterator`` hold ids of the kernel's types,
    ``unavailable`` the tables that it cannot supply, and why.
    """

    maps: tuple[MapSpec, ...]
    sizes: dict[str, tuple[int, int]]
    code: dict[str, bytes]
    probes: dict[str, str]
    iterators: tuple[str, ...]
    over_files: frozenset[str]
    tracepoints: dict[str, tuple[int, int]]
    iterator: int
    file_iterator: int
    bcc: str
    cached: bool
    unavailable: Mapping[str, str]
    samplers: tuple[str, ...] = ()


@dataclass(frozen=True)
class BccPackage:
    """The distribution's BCC: the folder of its Python package and its version."""

    folder: Path
    version: str


def find_bcc() -> BccPackage | None:
    """Find the distribution's BCC by its files, without importing it; PyPI's unrelated ``bcc`` has no libbcc.py."""
    for pattern in PACKAGES:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            version = folder / "version.py"
            if (folder / "libbcc.py").exists() and version.exists():
                found = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", version.read_text(errors="replace"))
                return BccPackage(folder, found[1] if found else "unknown")
    return None


def cache_folder() -> Path:
    """Return the folder for bytecode: what root loads into the kernel lies where only root can write."""
    if os.geteuid() == 0:
        return Path("/var/cache/ringtape")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringtape"


def bytecode(names: Sequence[str], cpus: int) -> Bytecode:
    """Return the programs that record these tables, from the cache where text, kernel, architecture and BCC are the same.

    Raises
    ------
    RecordingError
        If BCC is missing or refuses the text, or the kernel lacks what the probes read.
    """
    package = find_bcc()
    key = _cache_key(names, cpus, package.version if package else "none")
    entry = _from_cache(key)
    types = _types_of(entry) if entry else read_kernel_types(program.members(names), variables=program.variables(names))
    source = program.assemble(names, types, cpus)
    digest = hashlib.sha256(source.text.encode()).hexdigest()
    cached = entry is not None and entry["text"] == digest
    if entry is None or not cached:
        answer = _compile(source.text, source.functions)
        entry = {
            "text": digest,
            "bcc": answer["version"],
            "functions": answer["functions"],
            "offsets": [[structure, member, bits] for (structure, member), bits in types.offsets.items()],
            "tracepoints": {name: types.tracepoints[name] for name in set(source.probes.values()) if name in types.tracepoints},
            "iterator": types.iterator,
            "variables": types.variables,
            "file_iterator": types.file_iterator,
        }
        _to_cache(key, entry)
    code = {name: bytes.fromhex(text) for name, text in entry["functions"].items()}
    sizes = {spec.name: (_returned(code[f"map_key__{spec.name}"]), _returned(code[f"map_value__{spec.name}"])) for spec in source.maps}
    return Bytecode(
        maps=source.maps,
        sizes=sizes,
        code=code,
        probes=dict(source.probes),
        iterators=source.iterators,
        over_files=source.over_files,
        tracepoints=types.tracepoints,
        iterator=types.iterator,
        file_iterator=types.file_iterator,
        bcc=entry["bcc"],
        cached=cached,
        unavailable=source.unavailable,
        samplers=source.samplers,
    )


def _types_of(entry: dict[str, Any]) -> KernelTypes:
    return KernelTypes(
        {(structure, member): bits for structure, member, bits in entry["offsets"]},
        {name: (ids[0], ids[1]) for name, ids in entry["tracepoints"].items()},
        entry["iterator"],
        entry["variables"],
        entry["file_iterator"],
    )


def _returned(code: bytes) -> int:
    """Return the constant that a function of two instructions (mov r0, imm; exit) gives back."""
    if len(code) != 16 or code[0] != 0xB7:
        raise RecordingError("BCC compiled the size of a map to something else than a constant")
    return int.from_bytes(code[4:8], "little", signed=True)


def _cache_key(names: Sequence[str], cpus: int, bcc: str) -> str:
    digest = hashlib.sha256()
    # The build id of the kernel stands in its notes; the size of its types is there for kernels without one.
    notes = Path("/sys/kernel/notes")
    types = str(VMLINUX.stat().st_size if VMLINUX.exists() else 0)
    facts = [VERSION, platform.machine(), platform.release(), bcc, str(cpus), ",".join(sorted(names)), types]
    digest.update("\0".join(facts).encode())
    if os.access(notes, os.R_OK):
        digest.update(notes.read_bytes())
    for path in sorted(program.PROBES.glob("*.bpf.*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _safe(path: Path, kind: int) -> bool:
    status = path.lstat()
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _from_cache(key: str) -> dict[str, Any] | None:
    path = cache_folder() / f"{key}.json"
    try:
        if _safe(path.parent, stat.S_IFDIR) and _safe(path, stat.S_IFREG):
            content = json.loads(path.read_text())
            return content if isinstance(content, dict) and content.keys() == ENTRY else None
    except (OSError, ValueError):
        return None
    return None


def _to_cache(key: str, content: dict[str, Any]) -> None:
    folder = cache_folder()
    temporary = folder / f"{key}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _safe(folder, stat.S_IFDIR):
            return
        temporary.write_text(json.dumps(content))
        temporary.chmod(0o600)
        temporary.replace(folder / f"{key}.json")
    except OSError:
        return  # without a cache the next start is half a second slower, nothing else


def _compile(text: str, functions: list[str]) -> dict[str, Any]:
    python = next((name for name in PYTHONS if Path(name).exists()), None)
    if python is None:
        raise RecordingError("no python3 of the distribution found, under which BCC would run", "install the package python3")
    request = json.dumps({"text": text, "headers": str(program.HEADERS), "functions": functions})
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    done = subprocess.run([python, "-I", str(CHILD)], input=request.encode(), capture_output=True, env=environment, timeout=120, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"the compiler ended with status {done.returncode}"}
    if "error" in answer:
        detail = done.stderr.decode(errors="replace").strip()[-1500:]
        if "cannot be imported" in answer["error"]:
            hint = "install the distribution's package: python3-bpfcc (Debian, Ubuntu), python3-bcc (Fedora), python-bcc (Arch)"
            raise RecordingError(f"{python}: {answer['error']}", hint)
        hint = "`ringtape doctor` shows the versions; please report this with them"
        raise RecordingError(f"BCC could not compile the probes: {answer['error']}\n{detail}", hint)
    return dict(answer)
