"""The tests: whoever imports one runs services in its own process, so gRPC is prepared before it is imported."""

from keyark.rpc.tls import rule_out_tls_1_2

rule_out_tls_1_2()
