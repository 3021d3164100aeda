"""Studies: experiments that run workloads under tools, in blocks and again and again, and what can be claimed after them."""
