"""Wildcards on the command line: patterns choose from what exists, and one that matches nothing says what does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.errors import UserError
from harness.core.names import is_pattern, matches
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry


def test_a_pattern_matches_known_names_in_their_order_and_a_plain_name_is_itself() -> None:
    known = ("lbgen", "lbgen-no-q", "sd15", "lbgen-no-en")
    assert matches("lbgen-*", known, "generator") == ["lbgen-no-q", "lbgen-no-en"]
    assert matches("sd??", known, "generator") == ["sd15"] and matches("sdxl", known, "generator") == ["sdxl"]
    assert is_pattern("*") and not is_pattern("folder:/data/*") and not is_pattern("lbgen [1]")


def test_patterns_expand_beside_names_and_groups_and_count_as_not_named() -> None:
    suites, asked = registry.suites().expand("*-bias,in-domain")
    assert suites == ("background-bias", "context-bias", "object-bias", "texture-bias", "in-domain") and asked == {
        "in-domain"
    }
    generators, asked = registry.generators().expand("lbgen-*")
    assert "lbgen-released" in generators and "lbgen" not in generators and not asked
    assert all(name.startswith("lbgen-") for name in generators)
    everything, _ = registry.generators().expand("*")
    assert {"real", "lbgen"} <= {*everything} and not {"folder", "world"} & {*everything}


@pytest.mark.parametrize(("kind", "pattern"), [("generator", "xl-*"), ("suite", "*-bais")])
def test_a_pattern_without_a_match_names_what_exists_and_how_to_quote(kind: str, pattern: str) -> None:
    found = registry.generators() if kind == "generator" else registry.suites()
    with pytest.raises(UserError) as caught:
        found.expand(pattern)
    assert caught.value.what == f"no {kind} matches {pattern!r}"
    assert all(name in caught.value.why for name in (("lbgen", "real") if kind == "generator" else ("texture-bias",)))
    assert f"--{kind} '{pattern}'" in caught.value.fix


def test_backbones_of_the_profile_are_chosen_by_patterns() -> None:
    selection = Selection(load_profile("micro").profile, "real", "in-domain", "vit*, resnet10")
    assert Planner(selection)._archs() == ("vit_pico", "resnet10")
    assert Planner(replace(selection, backbones="*"))._archs() == ("resnet10", "vit_pico")
    with pytest.raises(UserError, match="no backbone matches 'convnext") as caught:
        Planner(replace(selection, backbones="convnext*"))._archs()
    assert "resnet10, vit_pico" in caught.value.why
