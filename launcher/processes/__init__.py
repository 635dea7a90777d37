"""Start, watch and stop the processes of one farm, and what its data dir says about them."""
