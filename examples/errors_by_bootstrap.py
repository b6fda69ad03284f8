"""Is the error bar right? The error of the mean beside the spread of bootstrap replicas."""

import matplotlib.pyplot as plt

import xsmall as xs

events = xs.tutorial.open_run("pump-probe")["events"].to_dataset()[["i0", "delay", "xray_on"]].compute()
cube = events.sd.cube({"delay": xs.bins(-2, 5, width=0.5)}).compute()
replicas = events.sd.bootstrap({"delay": xs.bins(-2, 5, width=0.5)}, n=200, seed=1).compute()

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
cube.sd.plot("i0", ax=left)
left.set_title("mean and its error")
right.plot(cube.delay, cube.i0_stderr, "o", label="from the spread of events")
right.plot(cube.delay, replicas.i0.std("replica", ddof=1), "x", label="from 200 replicas")
right.set(xlabel="delay [ps]", ylabel="error of the mean", ylim=(0, 0.02), title="two ways to the same error")
right.legend()
figure.savefig("errors_by_bootstrap.png", dpi=120)
