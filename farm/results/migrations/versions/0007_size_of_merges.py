"""How many commits a merge among the check-ins brought."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("check_in", sa.Column("brought", sa.Integer(), nullable=True))
