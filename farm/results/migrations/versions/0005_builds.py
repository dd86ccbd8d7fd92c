"""What revisions became on each platform."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "build",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("platform", sa.String(length=64), nullable=False),
        sa.Column("surroundings", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("resolved", sa.JSON(), nullable=False),
        sa.Column("session", sa.String(length=32), nullable=False),
        sa.Column("built_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["session"], ["session.id"], name=op.f("fk_build_session_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_build")),
        sa.UniqueConstraint(
            "tenant", "account", "revision", "platform", "surroundings",
            name=op.f("uq_build_tenant_account_revision_platform_surroundings"),
        ),
    )  # fmt: skip
    op.create_index(op.f("ix_build_revision"), "build", ["revision"])
