"""Conversion with the real qemu-img, and what is refused before it, by it and after it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glimpse.errors import GlimpseError, SettingsError, StoreFull, TooLarge, Unavailable, UnsupportedMediaType
from glimpse.imports import convert as module
from glimpse.imports.convert import Converted, check_conversion, convert
from glimpse.settings import Settings, load
from tests.journeys import content
from tests.journeys.content import MIB

SIZE = 8 * MIB
CAP = 64 * MIB


def settings_for(folder: Path, output: str = "raw", more: str = "") -> Settings:
    conf = folder / "glance-api.conf"
    conf.write_text(
        f"[DEFAULT]\nimage_size_cap = {CAP}\n[database]\nconnection = sqlite:///{folder}/db\n"
        "[image_import_opts]\nimage_import_plugins = [image_conversion]\n"
        f"[image_conversion]\noutput_format = {output}\n{more}"
    )
    return load(["--config-file", str(conf)])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def disk() -> bytes:
    """A disk with something at both ends and nothing between."""
    return content.noise(MIB, 1) + bytes(SIZE - 2 * MIB) + content.noise(MIB, 2)


def made(folder: Path, name: str, *options: str, data: bytes | None = None) -> Path:
    """The disk in one of qemu-img's formats."""
    raw, path = folder / "made.raw", folder / f"made.{name}"
    raw.write_bytes(disk() if data is None else data)
    qemu_img("convert", "-f", "raw", "-O", name, *options, raw, path)
    return path


def written(folder: Path, data: bytes) -> Path:
    path = folder / "written"
    path.write_bytes(data)
    return path


async def refused(
    path: Path, declared: str, settings: Settings, kind: type[GlimpseError] = UnsupportedMediaType
) -> str:
    """The text of the refusal, of which nothing else must stay."""
    target = path.parent / "target"
    before = set(path.parent.iterdir())
    with pytest.raises(kind) as caught:
        await convert(path, target, declared, settings)
    assert set(path.parent.iterdir()) == before
    assert str(path.parent) not in caught.value.message
    return caught.value.message


STREAM = ("-o", "subformat=streamOptimized")


@pytest.mark.parametrize(
    ("declared", "name", "options"),
    [
        ("qcow2", "qcow2", ()),
        ("qcow2", "qcow2", ("-c",)),
        ("qcow2", "qcow2", ("-o", "compat=0.10")),
        ("vmdk", "vmdk", ()),
        ("vmdk", "vmdk", STREAM),
        ("vdi", "vdi", ()),
        ("vhdx", "vhdx", ()),
        ("vhd", "vpc", ("-o", "force_size")),
    ],
)
async def test_to_raw(tmp_path: Path, settings: Settings, declared: str, name: str, options: tuple[str, ...]) -> None:
    """`vhd` too, which Glance can never convert."""
    source, target = made(tmp_path, name, *options), tmp_path / "target"
    before = source.read_bytes()
    assert await convert(source, target, declared, settings) == Converted(target, "raw", SIZE, SIZE)
    assert target.read_bytes() == disk()
    assert target.stat().st_blocks * 512 < SIZE // 2, "not sparse"
    assert source.read_bytes() == before
    assert not list(tmp_path.glob(".target*"))


@pytest.mark.parametrize("output", ["qcow2", "vmdk"])
@pytest.mark.parametrize("declared", ["raw", "gpt", "vdi"])
async def test_to_another(tmp_path: Path, output: str, declared: str) -> None:
    boot = content.gpt()[:512] if declared == "gpt" else b""
    data = boot + disk()[len(boot) :]
    source = written(tmp_path, data) if declared != "vdi" else made(tmp_path, "vdi")
    target = tmp_path / "target"
    result = await convert(source, target, declared, settings_for(tmp_path, output))
    assert (result.path, result.disk_format, result.virtual_size) == (target, output, SIZE)
    assert result.size == target.stat().st_size < SIZE // 2
    qemu_img("convert", "-f", output, "-O", "raw", target, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


async def test_nothing_to_do(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for declared, data in [("raw", disk()), ("raw", content.gpt()), ("gpt", content.gpt())]:
        source = written(tmp_path, data)
        result = await convert(source, target, declared, settings_for(tmp_path))
        assert result == Converted(source, declared, len(data), len(data))
    source = made(tmp_path, "qcow2")
    result = await convert(source, target, "qcow2", settings_for(tmp_path, "qcow2"))
    assert result == Converted(source, "qcow2", SIZE, source.stat().st_size)
    for output in ("raw", "qcow2"):
        for data in (content.iso(), content.iso(content.gpt()[:512])):
            source = written(tmp_path, data)
            result = await convert(source, target, "iso", settings_for(tmp_path, output))
            assert result == Converted(source, "iso", 5 * 2048, len(data))
    assert not target.exists()


async def test_a_step_that_runs_again(tmp_path: Path, settings: Settings) -> None:
    """A finished target is believed; what a killed process left of an unfinished one goes."""
    source, target = made(tmp_path, "qcow2"), tmp_path / "target"
    left = tmp_path / ".target.0a1b2c3d.part"
    left.write_bytes(b"half")
    first = await convert(source, target, "qcow2", settings)
    assert not left.exists()
    source.unlink()
    assert await convert(source, target, "qcow2", settings) == first


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("raw", content.qcow2()),  # OSSA-2024-001: raw must not be looked into again
        ("qcow2", content.noise(70_000)),
        ("vmdk", content.qcow2()),
        ("qcow2", content.iso()),
        ("raw", content.iso()),
        ("iso", content.noise(70_000)),
        ("ami", content.noise(70_000)),
        ("vhd", content.vhdx()),
        ("raw", content.luks()),
        ("luks", content.luks()),
        ("qcow2", b""),
    ],
)
async def test_not_what_it_claims(tmp_path: Path, settings: Settings, declared: str, data: bytes) -> None:
    text = await refused(written(tmp_path, data), declared, settings)
    assert "does not match" in text


UNSAFE = {
    "backing file": ("qcow2", content.qcow2(3, backing=512)),
    "old backing file": ("qcow2", content.qcow2(2, backing=512)),
    "data file": ("qcow2", content.qcow2(3, features=0b100)),
    "unknown features": ("qcow2", content.qcow2(3, features=1 << 5)),
    "flat extent": ("vmdk", content.vmdk("monolithicFlat")),
    "descriptor alone": ("vmdk", content.flat_descriptor()),
    "extent with a path": ("vmdk", content.vmdk(extent="/etc/passwd")),
    "footer of another mind": ("vmdk", content.stream_optimized(footer_version=2)),
    "partition table": ("raw", content.mbr(content.partition(0xEE), content.partition(0x83))),
    "qed": ("qed", content.qed()),
    "luks of another version": ("luks", content.luks(version=2)),
}


@pytest.mark.parametrize("case", UNSAFE)
async def test_unsafe(tmp_path: Path, settings: Settings, case: str) -> None:
    declared, data = UNSAFE[case]
    assert "safety" in await refused(written(tmp_path, data), declared, settings)


async def test_real_references(tmp_path: Path, settings: Settings) -> None:
    """OSSA-2015-014, OSSA-2024-001, OSSA-2023-002, with images that qemu-img itself made."""
    secret = written(tmp_path, disk())
    backed, apart, flat, chain = (tmp_path / name for name in ("backed", "apart", "flat.vmdk", "chain"))
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, backed)
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", apart, "8M")
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", secret, flat)
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", backed, chain)
    for path, declared in [(backed, "qcow2"), (apart, "qcow2"), (flat, "vmdk"), (chain, "qcow2")]:
        assert "safety" in await refused(path, declared, settings)


@pytest.mark.parametrize("inner", ["qcow2", "vmdk", "iso"])
async def test_one_format_inside_another(tmp_path: Path, settings: Settings, inner: str) -> None:
    """What comes out as raw must not be something else for whoever looks at it next."""
    data = {"qcow2": content.qcow2(features=0b100), "vmdk": content.flat_descriptor(), "iso": content.iso()}[inner]
    outer = made(tmp_path, "qcow2", data=data.ljust(MIB, b"\0"))
    text = await refused(outer, "qcow2", settings)
    assert "safety" in text or "turned out to be iso" in text


async def test_types_of_vmdk(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, more="[image_format]\nvmdk_allowed_types = streamOptimized\n")
    assert "vmdk_allowed_types" in await refused(made(tmp_path, "vmdk"), "vmdk", settings)
    await convert(made(tmp_path, "vmdk", *STREAM), tmp_path / "target", "vmdk", settings)
    (tmp_path / "target").unlink()
    nothing = replace(settings, formats=replace(settings.formats, vmdk_types=frozenset()))
    await refused(made(tmp_path, "vmdk", *STREAM), "vmdk", nothing)


async def test_disks_larger_than_the_cap(tmp_path: Path, settings: Settings) -> None:
    """OSSA-2013-029: a small file with a huge disk in it."""
    bomb = tmp_path / "bomb"
    qemu_img("create", "-f", "qcow2", bomb, "1T")
    assert "image_size_cap" in await refused(bomb, "qcow2", settings, TooLarge)
    raw = tmp_path / "raw"
    raw.touch()
    os.truncate(raw, CAP + 512)
    await refused(raw, "raw", settings_for(tmp_path, "qcow2"), TooLarge)


async def test_a_result_larger_than_the_cap(tmp_path: Path) -> None:
    """A disk of exactly the cap that has no hole becomes more than the cap as qcow2."""
    settings = replace(settings_for(tmp_path, "qcow2"), image_size_cap=SIZE)
    await refused(written(tmp_path, content.noise(SIZE)), "raw", settings, TooLarge)


async def test_encrypted(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "locked"
    options = "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10"
    qemu_img("create", "-f", "qcow2", "--object", "secret,id=k,data=abc", "-o", options, path, "8M")
    await refused(path, "qcow2", settings)


async def test_a_full_disk(tmp_path: Path, settings: Settings) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0:
        pytest.fail("run as root: a small file system is mounted")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(StoreFull):
            await convert(made(tmp_path, "qcow2"), small / "target", "qcow2", settings)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


# --- a qemu-img that behaves badly -----------------------------------------------------------------------------------


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a Python script where qemu-img is looked for."""

    def put(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        command = folder / "qemu-img"
        command.write_text(f"#!{sys.executable} -SsE\nimport json, os, resource, sys, time\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return put


INFO = {"format": "qcow2", "virtual-size": SIZE, "format-specific": {"type": "qcow2", "data": {"compat": "1.1"}}}


@pytest.mark.parametrize(
    "changed",
    [
        {"format": "raw"},
        {"backing-filename": "/etc/passwd"},
        {"format-specific": {"data": {"data-file": "/etc/passwd"}}},
        {"format-specific": {"data": {"deeper": [{"data-file": "x"}]}}},
        {"format-specific": {"data": {"extents": [{"filename": "/etc/passwd"}]}}},
        {"children": [{"name": "file", "info": {"filename": "nbd://localhost"}}]},
        {"filename": 'json:{"driver": "nbd"}'},
        {"virtual-size": "much"},
    ],
    ids=str,
)
async def test_what_qemu_img_sees(
    tmp_path: Path, settings: Settings, instead: Callable[[str], None], changed: dict[str, object]
) -> None:
    """Also what the inspection before did not see: the second line of defence."""
    source = made(tmp_path, "qcow2")
    instead(f"print({json.dumps({**INFO, **changed})!r}) if sys.argv[1] == 'info' else open('{tmp_path}/ran', 'w')")
    await refused(source, "qcow2", settings)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("script", ["print('no JSON')", "sys.exit(1)", "print('x' * 5_000_000)", "print([])"])
async def test_words_that_make_no_sense(
    tmp_path: Path, settings: Settings, instead: Callable[[str], None], script: str
) -> None:
    source = made(tmp_path, "qcow2")
    instead(script)
    await refused(source, "qcow2", settings)


async def test_any_complaint_counts(tmp_path: Path, settings: Settings, instead: Callable[[str], None]) -> None:
    source = made(tmp_path, "qcow2")
    instead(
        f"print({json.dumps(INFO)!r}) if sys.argv[1] == 'info' else"
        f" (open(sys.argv[-1][5:], 'wb').write(bytes({SIZE})), print('a warning', file=sys.stderr))"
    )
    await refused(source, "qcow2", settings)


async def test_limits(tmp_path: Path, settings: Settings, instead: Callable[[str], None]) -> None:
    """OSSA-2016-012, bug 1449062: each qemu-img has limits on processor, memory and files, and is the last in line."""
    source = made(tmp_path, "qcow2")
    instead(
        f"names = ('CPU', 'AS', 'FSIZE', 'CORE')\n"
        f"seen = [resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0] for name in names]\n"
        f"print(json.dumps([sys.argv[1], *seen, os.nice(0)]), file=os.fdopen(os.dup(2), 'w'))\n"
        f"print({json.dumps(INFO)!r})"
    )
    seen: list[list[object]] = []

    def note(code: int, errors: bytes) -> GlimpseError:
        seen.append(json.loads(errors))
        return UnsupportedMediaType()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnsupportedMediaType):
        patch.setattr(module, "_failure", note)
        await convert(source, tmp_path / "target", "qcow2", settings)
    assert seen == [["info", 2, 1 << 30, 0, 0, min(os.nice(0) + 10, 19)]]


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("while True: pass", UnsupportedMediaType, "processor time"),
        ("bytearray(2 << 30)", UnsupportedMediaType, "could not"),
        ("os.kill(os.getpid(), 9)", Unavailable, "to its end"),
        ("time.sleep(60)", UnsupportedMediaType, "longer than 3 seconds"),
    ],
)
async def test_too_much(
    tmp_path: Path,
    settings: Settings,
    instead: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    kind: type[GlimpseError],
    words: str,
) -> None:
    source = made(tmp_path, "qcow2")
    instead(script)
    if "sleep" in script:
        monkeypatch.setattr(module, "INFO_TIME", 3)
    assert words in await refused(source, "qcow2", settings, kind)


SLEEPING = (
    "open('{folder}/pid', 'w').write(str(os.getpid())) if sys.argv[1] == 'convert' else print('{info}')\n"
    "if sys.argv[1] == 'convert': open(sys.argv[-1][5:], 'w'); time.sleep(60)"
)


async def pid_in(folder: Path) -> int:
    """The running qemu-img."""
    for _ in range(500):
        path = folder / "pid"
        if path.exists() and (text := path.read_text()):
            return int(text)
        await asyncio.sleep(0.02)
    raise AssertionError("qemu-img did not start")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_cancelled(tmp_path: Path, settings: Settings, instead: Callable[[str], None]) -> None:
    source = made(tmp_path, "qcow2")
    instead(SLEEPING.format(folder=tmp_path, info=json.dumps(INFO)))
    task = asyncio.create_task(convert(source, tmp_path / "target", "qcow2", settings))
    pid = await pid_in(tmp_path)
    os.kill(pid, 15)  # a service that drains: systemd tells every process of it
    await asyncio.sleep(0.2)
    assert is_running(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(pid)
    assert not list(tmp_path.glob("*target*"))


async def test_killed(tmp_path: Path, settings: Settings, instead: Callable[[str], None]) -> None:
    """kill -9 of the worker takes qemu-img along."""
    source = made(tmp_path, "qcow2")
    instead(SLEEPING.format(folder=tmp_path, info=json.dumps(INFO)))
    script = (
        "import asyncio, pathlib\nfrom glimpse.imports.convert import convert\nfrom glimpse.settings import load\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "settings = load(['--config-file', str(folder / 'glance-api.conf')])\n"
        f"asyncio.run(convert(folder / {source.name!r}, folder / 'target', 'qcow2', settings))\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script])
    pid = await pid_in(tmp_path)
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not is_running(pid)


async def test_taken_over(tmp_path: Path, settings: Settings, instead: Callable[[str], None]) -> None:
    """Whoever lost the work meanwhile publishes nothing."""
    source = made(tmp_path, "qcow2")
    instead(f"print({json.dumps(INFO)!r}) if sys.argv[1] == 'info' else None")
    await refused(source, "qcow2", settings, Unavailable)


def test_a_missing_qemu_img_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(tmp_path)
    check_conversion(settings)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="qemu-utils"):
        check_conversion(settings)
    check_conversion(replace(settings, imports=replace(settings.imports, plugins=())))
