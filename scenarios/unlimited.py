"""Why nothing physical bounds some metrics: what they say on their pages where others have a share of their limit."""

CPU = "how much CPU time the work takes is the software's own doing"
MEMORY = "how much memory the client takes is its own doing"
STAGE = "how much of the boot's work is done by then nobody tells"
RATIO = "it is a ratio of two figures, each with a limit of its own or none"
COUNT = "it counts, and takes no time"
PROVEN = "the proof asks for no less than must be read, and void is what reads less"
REFUSAL = "a hypervisor may know at once that it will not, or never ask the other one"
