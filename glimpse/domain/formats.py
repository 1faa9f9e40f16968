"""What image content really is: the stream is held against the declared disk_format while it passes.

The detection is oslo.utils' format inspector; here is only what is concluded from it. Source of the rules:
OSSA-2015-014, OSSA-2023-002, OSSA-2024-001 (files of the host read through an image's header), and the specification
"Glance as defender".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from oslo_utils.imageutils import format_inspector

from glimpse.errors import UnsupportedMediaType

LOG = logging.getLogger(__name__)

# A detector that finds in one place where to look next (VHDX) misses the next place within the same piece, so headers
# come in small pieces. Behind them a piece costs a pass through every detector, and large ones are cheaper.
HEADERS = 64 << 20
HEADER_PIECE = 64 << 10

# How QEMU finds a VMDK that is text only (vmdk_probe in its block/vmdk.c): comments, blank lines, then the version.
_PROBED = re.compile(rb"(?:#[^\n]*\n| +\r?\n|[\r\n])*+version=[123]\r?\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def _is_descriptor(head: bytes) -> bool:
    """Whether QEMU could take a file that begins like this for the text part of a VMDK."""
    if _PROBED.match(head):
        return True
    text = head.partition(b"\0")[0]
    return b'createtype="' in text.lower() and not _CONTROL.search(text, 0, 512)


class _Vmdk(format_inspector.VMDKInspector):
    """The library's detector, but for text.

    The library takes each text for a descriptor until it has read it, and crashes on one that is not ASCII; QEMU does
    not mind other characters. Here a text is a VMDK when QEMU could use it as one, and then it is never safe: a
    descriptor without a disk behind it can only name other files (OSSA-2023-002).
    """

    _text = False

    def eat_chunk(self, chunk: bytes) -> None:
        if not self._total_count:
            self._text = _is_descriptor(chunk)
        super().eat_chunk(chunk)

    @property
    def complete(self) -> bool:
        return self._text or super().complete

    @property
    def format_match(self) -> bool:
        return self._text or (self.has_region("header") and self.region("header").data.startswith(b"KDMV"))

    def check_descriptor(self) -> None:
        if self._text:
            raise format_inspector.SafetyViolation("The descriptor is a file of its own")
        super().check_descriptor()


# Formats that content shows by itself; of any other, a disk_format is what its owner says.
KNOWN = frozenset(format_inspector.ALL_FORMATS)

_DETECTORS: dict[str, type[format_inspector.FileInspector]] = {**format_inspector.ALL_FORMATS, "vmdk": _Vmdk}


class Detector:
    """Looks at a stream with every detector at once; at the end says which one format it is in, if that is safe."""

    def __init__(self, gpt_checks_nonfatal: Collection[str]) -> None:
        self._nonfatal = frozenset(gpt_checks_nonfatal)
        self._detectors = [detector() for detector in _DETECTORS.values()]
        self._failed: set[format_inspector.FileInspector] = set()
        self._head = b""
        self._seen = 0
        self.received = 0  # bytes

    def feed(self, block: bytes) -> None:
        """Look at the next bytes of the stream."""
        self.received += len(block)
        if not self._seen:
            # What is concluded must not depend on the pieces in which the first bytes arrive.
            self._head += block
            if len(self._head) < HEADER_PIECE:
                return
            block, self._head = self._head, b""
        self._look(block)

    def _look(self, block: bytes) -> None:
        step = HEADER_PIECE if self._seen < HEADERS else len(block)
        for start in range(0, len(block), step or 1):
            piece = block[start : start + step]
            for detector in self._detectors:
                if detector in self._failed:
                    continue
                try:
                    detector.eat_chunk(piece)
                except Exception as error:  # they parse hostile input; one that cannot go on may still have matched
                    LOG.debug("detector of %s gives up: %s", detector, error)
                    self._failed.add(detector)
        self._seen += len(block)

    @property
    def decided(self) -> bool:
        """Whether more of the stream cannot change the answer."""
        return self._seen > 0 and all(detector.complete for detector in self._detectors)

    def conclude(self) -> format_inspector.FileInspector:
        """What the stream is. Raises `UnsupportedMediaType`; whatever else it raises means that nobody knows."""
        if self._head:
            self._look(self._head)
            self._head = b""
        for detector in self._detectors:
            detector.finish()
        found = self._found()
        try:
            found.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            if str(found) == "gpt" and self._nonfatal.issuperset(error.failures):
                LOG.warning("gpt image fails checks that are configured as not fatal: %s", ", ".join(error.failures))
                return found
            raise UnsupportedMediaType("Image failed safety checks") from error
        return found

    def _found(self) -> format_inspector.FileInspector:
        by_name = {str(detector): detector for detector in self._detectors}
        matches = {name for name, detector in by_name.items() if name != "raw" and detector.format_match}
        if matches == {"iso", "gpt"}:  # a hybrid ISO boots from disks too
            return by_name["iso"]
        if len(matches) > 1:
            raise UnsupportedMediaType(f"Image content matches several formats: {', '.join(sorted(matches))}")
        return by_name[matches.pop() if matches else "raw"]


class ContentInspector:
    """Looks at a stream block by block; at the end says whether it may be stored, and how large the disk is."""

    def __init__(self, disk_format: str, require_match: bool, gpt_checks_nonfatal: Collection[str]) -> None:
        self._disk_format = disk_format
        self._require_match = require_match
        self._detector = Detector(gpt_checks_nonfatal)

    def feed(self, block: bytes) -> None:
        """Look at the next bytes of the stream."""
        self._detector.feed(block)

    def conclude(self) -> int | None:
        """The virtual size in bytes, or None when it is not known. Raises `UnsupportedMediaType`."""
        try:
            return self._virtual_size(self._detector.conclude())
        except UnsupportedMediaType:
            raise
        except Exception as error:  # the detectors parse hostile input; whatever they raise, the image is refused
            if self._require_match:
                LOG.warning("format inspection failed: %s", error)
                raise UnsupportedMediaType("Image format could not be determined") from error
            return None

    def _virtual_size(self, found: format_inspector.FileInspector) -> int | None:
        detected, declared, received = str(found), self._disk_format, self._detector.received
        if declared == "raw" and detected != "raw":
            LOG.warning("image declared as raw looks like %s", detected)
            return received or None
        if detected == declared:
            size = received if detected in ("raw", "gpt") else found.virtual_size
            return size or None
        if detected == "raw" and declared not in KNOWN:
            return None
        if self._require_match:
            raise UnsupportedMediaType(f"Image disk_format {declared} does not match stream data {detected}")
        LOG.warning("image declared as %s looks like %s", declared, detected)
        return None
