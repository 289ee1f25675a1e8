"""The law that is examined with whole stories: the model in the testkit answers each call, too."""

from __future__ import annotations

from sched_testkit._stories.regressions import FOUND
from sched_testkit._stories.stories import Story, shortened, story
from sched_testkit._stories.teller import Teller
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law_of_seeds


@law_of_seeds(story, found=FOUND, shortened=shortened)
async def the_model_agrees(bench: Bench, told: Story) -> None:
    """Whatever two instances do one after the other, each call is answered as the model answers."""
    await Teller(bench).tell(told)
