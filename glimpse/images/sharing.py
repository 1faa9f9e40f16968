"""With whom an image is shared, while a caller waits (API reference, Sharing).

The owner adds and removes members, each member says what it makes of the image. Every writer holds the image's row
from its first look to its last write, so that a quota holds and nobody is added twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from glimpse.access.policy import Policy, require_owner
from glimpse.db import images, members
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import MEMBER_STATUSES, Image, Member
from glimpse.domain.schema import is_storable
from glimpse.errors import BadRequest, Duplicate, Forbidden, NotFound
from glimpse.images.manage import within
from glimpse.notifications import Notifications, gone
from glimpse.settings import Settings


@dataclass(frozen=True)
class Sharing:
    """The calls on members. Only an image of visibility `shared` has any."""

    settings: Settings
    database: Database
    policy: Policy
    notifications: Notifications

    def find(self, context: Context, image_id: str) -> list[Member]:
        """The members: all of them for the owner and for administrators, for anybody else only themselves.

        Raises `NotFound`, `Forbidden` (image not shared, policy).
        """

        def query(connection: Connection) -> tuple[Image, list[Member]]:
            return _shared(connection, context, image_id), members.find(connection, image_id)

        image, found = self.database.read(query)
        self.policy.require_for_image("get_members", context, image)
        if not self._may_see(context, image):
            return []
        return [member for member in found if _shows(context, image, member)]

    def show(self, context: Context, image_id: str, member_id: str) -> Member:
        """One member. Raises `NotFound`, also for everything that is forbidden."""

        def query(connection: Connection) -> Member:
            image = _shared(connection, context, image_id)
            return self._one(connection, context, image, member_id)

        try:
            return self.database.read(query)
        except Forbidden as error:
            raise NotFound(error.message) from error

    def add(self, context: Context, image_id: str, member_id: str) -> Member:
        """Share the image with a project, which need not exist.

        Raises `NotFound`, `Forbidden`, `Duplicate`, `TooLarge` (image_member_quota).
        """

        def work(connection: Connection) -> Member:
            image = _shared(connection, context, image_id, lock=True)
            self.policy.require_for_image("add_member", context, image)
            if self.policy.old_defaults:
                require_owner(context, image)
            within("member", members.count(connection, image_id) + 1, self.settings.image_member_quota)
            if members.find(connection, image_id, member_id):
                raise Duplicate(f"Image {image_id} is shared with {member_id} already.")
            members.add(connection, image_id, member_id, lifecycle.now())
            return members.find(connection, image_id, member_id)[0]

        member = self.database.write(work)
        self.notifications.tell("image.member.create", member)
        return member

    def change(self, context: Context, image_id: str, member_id: str, status: object) -> Member:
        """Note whether the member accepts the image. The owner has no say in it, administrators have.

        Raises `NotFound`, `Forbidden`, `BadRequest` (no such status).
        """

        def work(connection: Connection) -> Member:
            image = _shared(connection, context, image_id, lock=True)
            member = self._one(connection, context, image, member_id)
            self.policy.require_for_image("modify_member", context, image)
            if self.policy.old_defaults and not context.is_admin and context.project_id == image.owner:
                raise Forbidden("Only the member itself says whether it accepts an image.")
            if status not in MEMBER_STATUSES:
                raise BadRequest(f"The status of a member is one of {', '.join(MEMBER_STATUSES)}.")
            if status != member.status:
                members.set_status(connection, member, str(status), lifecycle.now())
            return members.find(connection, image_id, member.member_id)[0]

        member = self.database.write(work)
        self.notifications.tell("image.member.update", member)
        return member

    def remove(self, context: Context, image_id: str, member_id: str) -> None:
        """Share the image no longer with that project. Raises `NotFound`, `Forbidden`."""

        def work(connection: Connection) -> Member:
            image = _shared(connection, context, image_id, lock=True)
            member = self._one(connection, context, image, member_id)
            self.policy.require_for_image("delete_member", context, image)
            if self.policy.old_defaults:
                require_owner(context, image)
            members.remove(connection, member, lifecycle.now())
            return member

        self.notifications.tell("image.member.delete", self.database.write(work), **gone(lifecycle.now()))

    def _one(self, connection: Connection, context: Context, image: Image, member_id: str) -> Member:
        """The member as the caller may see it. Raises `NotFound`, `Forbidden`."""
        self.policy.require_for_image("get_member", context, image)
        found = members.find(connection, image.id, member_id) if is_storable(member_id) else []
        if not found or not _shows(context, image, found[0]):
            raise NotFound(f"Image {image.id} is not shared with {member_id[:255]}.")
        return found[0]

    def _may_see(self, context: Context, image: Image) -> bool:
        try:
            self.policy.require_for_image("get_member", context, image)
        except (Forbidden, NotFound):
            return False
        return True


def _shared(connection: Connection, context: Context, image_id: str, lock: bool = False) -> Image:
    image = images.get(connection, image_id, context, lock)
    if image.visibility != "shared":
        raise Forbidden("Only shared images have members.")
    return image


def _shows(context: Context, image: Image, member: Member) -> bool:
    """A member does not learn who else is one."""
    own = context.project_id is not None and context.project_id in (image.owner, member.member_id)
    return context.is_admin or own
