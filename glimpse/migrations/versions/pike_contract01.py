"""Drops the tables of the artifacts experiment (Glare), which Glance left in Pike."""

from glimpse.migrations import steps

revision = "pike_contract01"
down_revision = "ocata_contract01"
branch_labels = None
depends_on = "pike_expand01"


def upgrade() -> None:
    for name in (
        "artifact_blob_locations",
        "artifact_properties",
        "artifact_blobs",
        "artifact_dependencies",
        "artifact_tags",
        "artifacts",
    ):
        steps.drop_table(name)
