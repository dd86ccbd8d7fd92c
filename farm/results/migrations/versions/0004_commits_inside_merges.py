"""Commits that merges brought, and what a search among them found."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "inside_commit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("merge", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("parents", sa.JSON(), nullable=False),
        sa.Column("subject_line", sa.String(length=200), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inside_commit")),
        sa.UniqueConstraint("repository", "merge", "commit", name=op.f("uq_inside_commit_repository_merge_commit")),
    )
    op.create_index(op.f("ix_inside_commit_merge"), "inside_commit", ["merge"])
    op.create_index(op.f("ix_inside_commit_revision"), "inside_commit", ["revision"])
    op.add_column("finding", sa.Column("inside", sa.JSON(), nullable=True))
