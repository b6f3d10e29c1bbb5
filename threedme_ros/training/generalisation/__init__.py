"""How well ours and the peers hold on patients and scanners they never saw: the runs, their figures, the table."""
