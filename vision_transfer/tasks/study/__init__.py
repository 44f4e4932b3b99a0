"""Studies of several runs: plan, execution, statistics, tables and figures; the ablation and the probe share them."""
