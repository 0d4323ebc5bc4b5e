"""Maps of currents from people's own drifters: estimates with spread, judged by leaving drifters out."""
