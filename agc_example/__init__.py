"""The CMS ttbar analysis of the Analysis Grand Challenge, run by coffea_dirac."""
