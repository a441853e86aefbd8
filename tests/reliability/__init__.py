"""What the package promises when files lie, disks are full, processes die and input is bad."""
