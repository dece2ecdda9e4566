"""Arms of Damiao motors on a CAN bus, such as i2rt's YAM and Enactic's OpenArm, in MIT mode."""
