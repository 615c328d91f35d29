"""Feeds recipes to the parser for some minutes, and reports crashes, hangs over a second, and errors without a type.

    python tests/recipe/fuzz_recipes.py 10          minutes; exit code 1 if anything is found

What is fed is what test_fuzz.py feeds, whose seed corpus is ``corpus/``; each call draws anew. Findings are written to
``fuzz_findings/`` here, to become an ``@example`` there.
"""

import contextlib
import hashlib
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_fuzz import ENDINGS, assembled, is_read_or_refused, mutated

HERE = Path(__file__).parent
LIMIT = 1.0  # seconds of this process's own time
BATCH = 500


class Hangs(BaseException):
    """More than `LIMIT` went by; no Exception, so that nothing catches it on the way."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise in the middle of what takes too long, where this process itself was busy for so long."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Hangs

    signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


class Findings:
    """What was fed, and what went wrong, by its kind."""

    def __init__(self) -> None:
        self.fed = 0
        self.slowest = 0.0
        self.found: Counter[str] = Counter()

    def feed(self, text: str, source: str) -> None:
        """Feed one recipe."""
        self.fed += 1
        began = time.process_time()
        try:
            with limited():
                is_read_or_refused(text, source)
        except Hangs:
            self._keep("hang", text, source, "")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            self._keep(place, text, source, traceback.format_exc())
        self.slowest = max(self.slowest, time.process_time() - began)

    def _keep(self, kind: str, text: str, source: str, told: str) -> None:
        self.found[kind] += 1
        if self.found[kind] == 1:
            folder = HERE / "fuzz_findings"
            folder.mkdir(exist_ok=True)
            name = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
            (folder / f"{name}.txt").write_text(f"{kind}\n{source}\n{text!r}\n{told}")
            print(f"{kind}: {text!r}", file=sys.stderr)


def fuzz(minutes: float) -> Findings:
    """Feed recipes for so long."""
    findings = Findings()
    recipes = st.one_of(
        st.tuples(mutated(), st.sampled_from(ENDINGS)),
        st.tuples(assembled(), st.just("r.yaml")),
        st.tuples(st.text(max_size=200), st.just("recipe")),
    )

    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(recipes)
    def feed(recipe: tuple[str, str]) -> None:
        findings.feed(*recipe)

    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        feed()
    return findings


if __name__ == "__main__":
    found = fuzz(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
    told = dict(found.found) or "nothing"
    print(f"{found.fed} recipes, the slowest {found.slowest:.2f} s of the processor; found: {told}")
    sys.exit(bool(found.found))
