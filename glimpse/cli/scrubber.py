"""`glance-scrubber`: erase now what deleted images left in the stores, again and again with `--daemon`; or bring an
image back that waits for that.

The service does the same by itself (`images/scrub.py`): nobody has to run this, and nothing has to be stopped for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log as oslo_log

from glimpse import config_files, settings
from glimpse.db.engine import Database
from glimpse.errors import GlimpseError, SettingsError
from glimpse.images.scrub import Scrubber
from glimpse.settings import Settings
from glimpse.stores.registry import open_stores

PROG = "glance-scrubber"
OPTIONS = [
    cfg.BoolOpt("daemon", short="D", default=False, help="Go on for ever, with a pass every wakeup_time seconds"),
    cfg.StrOpt("restore", metavar="IMAGE_ID", help="Make an image that is pending_delete active again"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed.

    What a store refuses to erase is told in the log, and stays for the next pass: that is no failure.
    """
    try:
        conf = config_files.parse(list(sys.argv[1:] if argv is None else argv), PROG, OPTIONS)
        if conf.restore and conf.daemon:
            raise SettingsError("--restore and --daemon exclude each other")
        conf.set_default("use_stderr", True)
        oslo_log.setup(conf, "glance")
        asyncio.run(_run(settings.settings_from(conf), conf.daemon, conf.restore))
    except (SettingsError, GlimpseError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _run(chosen: Settings, daemon: bool, image_id: str | None) -> None:
    stores, database = open_stores(chosen), Database(chosen.database, chosen.record_threads)
    scrubber = Scrubber(chosen, database, stores)
    try:
        if image_id is not None:
            print(f"Image {image_id} is {await scrubber.restore(image_id)} again.")
        elif daemon:
            await _until_told(scrubber)
        else:
            await scrubber.pass_once()
    finally:
        await stores.close()
        database.close()


async def _until_told(scrubber: Scrubber) -> None:
    task = asyncio.create_task(scrubber.keep_scrubbing())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
