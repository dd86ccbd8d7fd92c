"""The values that a ratio between clusters was made of."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("comparison", sa.Column("level", sa.Double(), nullable=True))
    op.add_column("comparison", sa.Column("other_level", sa.Double(), nullable=True))
