"""What is held against each pixel, and how much of the detector each reason costs."""

import matplotlib.pyplot as plt
import numpy as np

import xsmall as xs

raw = xs.tutorial.open_run("powder")["jungfrau"]["raw"]
constants = xs.tutorial.open_constants("powder")
arm = xs.Polygon([(0, 0), (0.03, 0.012), (0.03, 0.015), (0, 0)])
flags = xs.mask(raw, edges=2, status=constants, neighbours=1, shadow=xs.Circle((0, 0), 2e-3) | arm)
names = ("dead", "edge", "neighbour_of_bad", "shadow")
held = {name: (flags.values & int(xs.Reason[name.upper()])) != 0 for name in names}

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=(1.5, 1))
first = np.select([held[n] for n in reversed(names)], range(len(names), 0, -1), 0)  # the last named reason wins
(0 * raw[0].astype("f4") + first).compute().sd.plot(cmap="Set2", vmin=-0.5, vmax=7.5, colorbar=False, ax=left)
left.set_title(f"{float(xs.usable(flags).mean()):.1%} of the pixels are left")
right.barh(names, [100 * h.mean() for h in held.values()], color=plt.get_cmap("Set2")(range(1, 5)))
right.set(xlabel="pixels [%]", title="by reason")
figure.savefig("reasons_on_the_detector.png", dpi=120)
