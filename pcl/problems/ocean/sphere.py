"""Metres and degrees on the Earth, by the rule of Parcels: a minute of latitude is a nautical mile of 1852 m."""

__all__ = ["METRES_PER_DEGREE"]

METRES_PER_DEGREE = 111_120.0  # m of latitude, and of longitude at the equator: a radius of 6,366,707.02 m
