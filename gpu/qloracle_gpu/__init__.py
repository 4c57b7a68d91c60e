"""GPU backends that obey the specification `qloracle`: one subpackage for each framework."""
