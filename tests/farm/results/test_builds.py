"""What a revision became is kept of the first session that built it, and said to later ones of the same owner."""

from dataclasses import replace

from farm.results.builds import known
from farm.results.database import reading
from farm.results.tables import Build, Session
from reports.builds import Deployed, bits_told
from scenarios.crossing import Plan, PlannedBuild, ResolvedBuild, to_data
from tests.helpers.bundles import SUBJECT, Draft
from tests.helpers.farmhouse import Farmhouse

LOCK = f"idna==3.9 --hash=sha256:{'1' * 64}\n"


def built(revision: str, lock: str = LOCK, platform: str = "cpython-311-linux-x86_64") -> ResolvedBuild:
    return ResolvedBuild(revision, lock, "2" * 64, {}, platform, {"swift": "3" * 64})


def answer(plan: Plan, lock: str = LOCK) -> Draft:
    draft = Draft(plan)
    draft.manifest["builds"] = [to_data(built(build.revision, lock)) for build in plan.builds]
    return draft


def known_in(farmhouse: Farmhouse, session: str, planned: PlannedBuild) -> tuple[ResolvedBuild, ...]:
    with reading(farmhouse.engine) as transaction:
        return known(transaction, transaction.get_one(Session, session), planned)


def test_the_first_to_build_a_revision_tells_all_later_ones(farmhouse: Farmhouse, plan: Plan) -> None:
    assert farmhouse.ingest(farmhouse.pack(answer(plan))).accepted
    second = replace(plan, session="s2")
    farmhouse.take_in(second, answer(second, LOCK.replace("3.9", "3.10")))
    assert farmhouse.count(Build) == len(plan.builds)
    subject = next(build for build in plan.builds if build.revision == SUBJECT)
    assert known_in(farmhouse, "s2", subject) == (built(SUBJECT),)
    assert known_in(farmhouse, "s2", replace(subject, lock="of the stack, and a new one")) == ()


def test_nothing_is_known_of_what_others_built(farmhouse: Farmhouse, plan: Plan) -> None:
    assert farmhouse.ingest(farmhouse.pack(answer(plan))).accepted
    farmhouse.issue(replace(plan, session="s2"), account="somebody else")
    assert known_in(farmhouse, "s2", plan.builds[0]) == ()


def test_a_page_tells_who_ran_the_same_bits_and_who_did_not() -> None:
    own, same = Deployed("s1", "Acorn", built(SUBJECT)), Deployed("s2", "Birch", built(SUBJECT))
    other = Deployed("s3", "Birch", built(SUBJECT, LOCK.replace("3.9", "3.10")))
    assert bits_told(own, [own]) == ["no other session has deployed it on this platform"]
    assert bits_told(own, [own, same, other]) == [
        "the same bits as in 1 other session, on Birch",
        "other bits in session s3 on Birch: idna 3.10 (1111111) → 3.9 (1111111)",
    ]
