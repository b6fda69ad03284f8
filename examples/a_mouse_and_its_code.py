"""What the mouse draws is a value and a line of code: the explorer, used without a browser."""

import xsmall as xs

sim = xs.simulate(60, shape=(2, 96, 128), seed=3)
raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
cal = raw.sd.calibrate(sim.constants)

view = cal.sd.explore(reasons=raw.sd.trust(sim.constants))
view.show(event=7).colors(5, 99.5)
view.add(xs.Circle((0.0021, 0.0012), 0.0006), "spot")
view.add(xs.Band("q", 0.9, 1.1), "ring")
view.hide(xs.Polygon([(0, 0), (0.004, 0), (0.004, -0.0015), (0, 0)]), "shadow")
print(view.code())
view.figure.savefig("a_mouse_and_its_code.png", dpi=110)
