"""Changes nothing: `liberty` creates the tables without `is_public`."""

revision = "ocata_contract01"
down_revision = "mitaka02"
branch_labels = ("ocata01", "contract")
depends_on = "ocata_expand01"


def upgrade() -> None:
    pass
