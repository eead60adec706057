"""Data sets as people have them on their disks, one file for each layout. Nothing is downloaded."""
