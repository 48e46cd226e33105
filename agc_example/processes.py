"""The processes of the ttbar analysis: what each produces, and numbers tuned so that as many events pass as at CMS.

The tuned numbers stand for what is not measured: efficiencies, and jets of other origin in processes without a seed.
With them the fractions of events in regions 4j1b and 4j2b are those of the AGC's reference histograms within 30 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Process:
    """What is produced, and the tuned numbers.

    Attributes
    ----------
    tops, ws : int
        Tops, and Ws that come from no top.
    b_quarks, forward_quarks : int
        Further quarks of the hard process.
    lepton_efficiency : float
        How often a lepton from a W is found.
    extra : float
        Factor on the measured number of jets of other origin.
    extra_b : float
        Fraction of b jets among those.
    w_leptonic : bool
        The W from no top always decays to leptons.
    enriched : bool
        The first W decays to e or mu, the others to quarks.
    top_pt, response : float
        Factors on the pt of tops and on jet over quark pt.
    seed : str
        The measured file that jets and leptons of other origin are like.
    """

    tops: int = 0
    ws: int = 0
    b_quarks: int = 0
    forward_quarks: int = 0
    lepton_efficiency: float = 1.0
    extra: float = 1.0
    extra_b: float = 0.02
    w_leptonic: bool = False
    enriched: bool = False
    top_pt: float = 1.0
    response: float = 1.0
    seed: str = "ttbar_v15"


PROCESSES = {
    "ttbar": Process(tops=2, lepton_efficiency=0.8, extra=0.68),
    "single_top_s_chan": Process(tops=1, b_quarks=1, lepton_efficiency=0.7, extra=0.7),
    "single_top_t_chan": Process(tops=1, b_quarks=1, forward_quarks=1, lepton_efficiency=0.6, extra=0.37),
    "single_top_tW": Process(tops=1, ws=1, lepton_efficiency=0.85, extra=1.1, extra_b=0.3),
    "wjets": Process(ws=1, w_leptonic=True, seed="wjets_2015", lepton_efficiency=0.5, extra_b=0.07),
}
VARIATIONS: dict[str, dict[str, dict[str, float]]] = {
    "ttbar": {
        "scaledown": {"extra": 0.9},
        "scaleup": {"extra": 1.1},
        "ME_var": {"extra": 1.5, "top_pt": 1.06},
        "PS_var": {"response": 0.96},
    }
}
"""Process -> variation -> factors on the nominal numbers."""
ENRICHED: dict[str, dict[str, float]] = {
    "ttbar": {},
    "single_top_s_chan": {"extra": 2.0},
    "single_top_t_chan": {"extra": 2.0},
    "single_top_tW": {},
    "wjets": {"extra": 8.0, "extra_b": 0.3},
}
"""Process -> numbers of a sample for tests, where one W decays to e or mu in each event, and the others to quarks."""


def model(process: str, variation: str, *, enriched: bool = False) -> Process:
    """Return the numbers of a sample.

    Raises
    ------
    KeyError
        There is no such process or variation.

    Examples
    --------
    >>> model("ttbar", "PS_var").response
    0.96
    """
    found = PROCESSES[process]
    factors = {} if variation == "nominal" else VARIATIONS[process][variation]
    found = replace(found, **{name: getattr(found, name) * factor for name, factor in factors.items()})
    if not enriched:
        return found
    return replace(found, enriched=True, lepton_efficiency=1.0, **ENRICHED[process])  # type: ignore[arg-type]
