"""What image content really is: the stream is held against the declared disk_format while it passes.

The detection is oslo.utils' format inspector; here is only what is concluded from it. Source of the rules:
OSSA-2015-014, OSSA-2023-002, OSSA-2024-001 (files of the host read through an image's header), and the specification
"Glance as defender".
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import IO, cast

from oslo_utils.imageutils import format_inspector

from glimpse.errors import UnsupportedMediaType

LOG = logging.getLogger(__name__)

# A detector that finds in one place where to look next (VHDX) misses the next place within the same piece, so headers
# come in small pieces. Behind them a piece costs a pass through every detector, and large ones are cheaper.
HEADERS = 64 << 20
HEADER_PIECE = 64 << 10


class _Block:
    """The reading side that the inspector wants: gives out the block that was put in last."""

    def __init__(self) -> None:
        self.data = b""

    def read(self, size: int) -> bytes:
        return self.data


class ContentInspector:
    """Looks at a stream block by block; at the end says whether it may be stored, and how large the disk is."""

    def __init__(self, disk_format: str, require_match: bool, gpt_checks_nonfatal: Collection[str]) -> None:
        self._disk_format = disk_format
        self._require_match = require_match
        self._nonfatal = frozenset(gpt_checks_nonfatal)
        self._block = _Block()
        self._wrapper = format_inspector.InspectWrapper(cast("IO[bytes]", self._block))
        self._received = 0

    def feed(self, block: bytes) -> None:
        """Look at the next bytes of the stream."""
        step = HEADER_PIECE if self._received < HEADERS else len(block)
        for start in range(0, len(block), step or 1):
            self._block.data = block[start : start + step]
            self._wrapper.read(step)
        self._received += len(block)

    def conclude(self) -> int | None:
        """The virtual size in bytes, or None when it is not known. Raises `UnsupportedMediaType`."""
        self._wrapper.close()
        try:
            found = self._detected()
            self._check_safety(found)
            return self._virtual_size(found)
        except UnsupportedMediaType:
            raise
        except Exception as error:  # the detectors parse hostile input; whatever they raise, the image is refused
            if self._require_match:
                LOG.warning("format inspection failed: %s", error)
                raise UnsupportedMediaType("Image format could not be determined") from error
            return None

    def _detected(self) -> format_inspector.FileInspector:
        matches = {str(found): found for found in self._wrapper.formats or []}
        if set(matches) == {"iso", "gpt"}:  # a hybrid ISO boots from disks too
            return matches["iso"]
        if len(matches) != 1:
            raise UnsupportedMediaType(f"Image content matches several formats: {', '.join(sorted(matches))}")
        return next(iter(matches.values()))

    def _check_safety(self, found: format_inspector.FileInspector) -> None:
        try:
            found.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            if str(found) == "gpt" and self._nonfatal.issuperset(error.failures):
                LOG.warning("gpt image fails checks that are configured as not fatal: %s", ", ".join(error.failures))
                return
            raise UnsupportedMediaType("Image failed safety checks") from error

    def _virtual_size(self, found: format_inspector.FileInspector) -> int | None:
        detected, declared = str(found), self._disk_format
        if declared == "raw" and detected != "raw":
            LOG.warning("image declared as raw looks like %s", detected)
            return self._received or None
        if detected == declared:
            size = self._received if detected in ("raw", "gpt") else found.virtual_size
            return size or None
        if detected == "raw" and declared not in format_inspector.ALL_FORMATS:
            return None
        if self._require_match:
            raise UnsupportedMediaType(f"Image disk_format {declared} does not match stream data {detected}")
        LOG.warning("image declared as %s looks like %s", declared, detected)
        return None
