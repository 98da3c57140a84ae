"""The spine: wires the rooms together and publishes what is to be seen."""
