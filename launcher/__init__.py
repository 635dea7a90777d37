"""The launcher behind `./farm`: sets up, starts and stops the farm, and is the operator's command line."""
