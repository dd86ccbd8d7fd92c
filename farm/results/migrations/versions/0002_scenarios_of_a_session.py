"""A session may ask other scenarios, or otherwise, than the settings say: sweeps, and what somebody asks for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("session", sa.Column("scenarios", sa.JSON(), nullable=True))
