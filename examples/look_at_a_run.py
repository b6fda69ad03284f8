"""A first look at a run: every detector, the intensity, the scan, in one call."""

import xsmall as xs

run = xs.tutorial.open_run("pump-probe")  # with your own data: run = xs.open_run("run42.xtc2")
run.sd.quicklook(events=40).savefig("look_at_a_run.png", dpi=120)
