package scenario

// samples is about what the samples of config/samples promise in their comments.
var samples = []Scenario{{
	Name:    "namespace/default-deny-with-dns.yaml",
	Samples: "namespace/default-deny-with-dns.yaml",
	Lines: []string{
		"web reaches dns on udp/53 tcp/53", "web does not reach dns on tcp/9153", "web does not reach database", "database does not reach web",
		"web does not reach outside on tcp/443", "outside does not reach web", "till reaches bare", "n1 reaches web",
	},
}, {
	Name:    "cluster/default-deny-with-dns.yaml",
	Samples: "cluster/default-deny-with-dns.yaml",
	Lines: []string{
		"vault reaches dns on udp/53 tcp/53", "vault reaches dns-service on udp/53", "vault reaches dns-local on udp/53 tcp/53",
		"vault does not reach safe", "web does not reach vault", "vault does not reach outside on tcp/443", "web reaches till", "n1 reaches vault",
	},
}, {
	Name:    "cluster/tenant-isolation.yaml",
	Samples: "cluster/tenant-isolation.yaml",
	Lines: []string{
		"web reaches parcel", "web would not reach till", "till would not reach web", "web would not reach bare", "bare would not reach web",
		"outside would not reach web", "web would not reach outside on tcp/443", "web reaches dns on udp/53", "bare reaches vault",
	},
}, {
	Name:    "cluster/tenant-isolation.yaml enforced",
	Samples: "cluster/tenant-isolation.yaml",
	Enforce: true,
	Lines: []string{
		"web reaches parcel", "parcel reaches database", "web does not reach till", "till does not reach web", "web does not reach bare",
		"bare does not reach web", "outside does not reach web", "web does not reach outside on tcp/443", "web does not reach n2 on tcp/6443",
		"web reaches dns on udp/53 tcp/53", "bare reaches vault",
	},
}, {
	Name:    "cluster/tenant-isolation.yaml enforced beside {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}",
	Samples: "cluster/tenant-isolation.yaml",
	Enforce: true,
	Objects: "shop/more: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}",
	Lines:   []string{"outside reaches web on tcp/80", "bare reaches web on tcp/80", "till does not reach web", "outside does not reach database"},
}, {
	Name:    "cluster/allow-monitoring.yaml beside {podSelector: {}}",
	Samples: "cluster/allow-monitoring.yaml",
	Objects: "shop/more: {podSelector: {}}",
	Lines: []string{
		"prometheus reaches web on tcp/9113 tcp/9090 tcp/9199 tcp/8443", "prometheus does not reach web on tcp/80 udp/9113 tcp/9200",
		"metrics-server does not reach web on tcp/9113", "bare does not reach web on tcp/9113",
	},
}, {
	Name:    "cluster/allow-monitoring.yaml cluster/default-deny-with-dns.yaml cluster/tenant-isolation.yaml enforced",
	Samples: "cluster/allow-monitoring.yaml cluster/default-deny-with-dns.yaml cluster/tenant-isolation.yaml",
	Enforce: true,
	Lines:   []string{"prometheus reaches vault on tcp/9113", "prometheus reaches web on tcp/9113", "prometheus does not reach web on tcp/80"},
}, {
	Name:    "cluster/block-metadata.yaml beside {podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	Samples: "cluster/block-metadata.yaml",
	Objects: "shop/more: {podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	Lines: []string{
		"web does not reach metadata on tcp/80 tcp/443 udp/53", "bare does not reach metadata", "metrics-server reaches metadata",
		"web reaches outside on tcp/443", "web reaches dns-local on udp/53",
	},
}, {
	Name:    "cluster/protect-kubelet.yaml beside {podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	Samples: "cluster/protect-kubelet.yaml",
	Objects: "shop/more: {podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	Lines: []string{
		"web does not reach n1 on tcp/10250", "web does not reach n2 on tcp/10250", "bare does not reach n3 on tcp/10250",
		"web reaches n2 on tcp/6443 udp/10250", "metrics-server reaches n2 on tcp/10250", "prometheus reaches n1 on tcp/10250",
		"web reaches till on tcp/10250",
	},
}, {
	Name:    "cluster/allow-ingress-controller.yaml beside {podSelector: {}}",
	Samples: "cluster/allow-ingress-controller.yaml",
	Objects: "shop/more: {podSelector: {}}",
	Lines:   []string{"n2 reaches web", "n3 does not reach web", "n2 does not reach database", "bare does not reach web", "n1 reaches web"},
}, {
	Name:    "cluster/egress-only-to.yaml beside {podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	Samples: "cluster/egress-only-to.yaml",
	Only:    IPv4, // the sample has no network of IPv6
	Objects: "shop/more: {podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	Lines: []string{
		"miner reaches partner on tcp/443 udp/514", "miner does not reach outside on tcp/443", "miner reaches helper", "miner does not reach web",
		"miner reaches dns on udp/53", "outside reaches miner", "web reaches outside on tcp/443",
	},
}, {
	Name:    "cluster/database-wall.yaml beside {podSelector: {}, ingress: [{}]}",
	Samples: "cluster/database-wall.yaml",
	Objects: "shop/more: {podSelector: {}, ingress: [{}]}",
	Lines: []string{
		"web reaches database on tcp/5432", "parcel reaches database on tcp/5432", "till does not reach database on tcp/5432",
		"prometheus does not reach database on tcp/9187", "outside does not reach database", "till reaches web", "n1 reaches database",
	},
}, {
	Name:    "cluster/database-wall.yaml beside {podSelector: {matchLabels: {app: database}}, ingress: [{ports: [{port: 5432}]}]}",
	Samples: "cluster/database-wall.yaml",
	Objects: "shop/more: {podSelector: {matchLabels: {app: database}}, ingress: [{ports: [{port: 5432}]}]}",
	Lines:   []string{"web reaches database on tcp/5432", "web does not reach database on tcp/9187"},
}, {
	Name:    "cluster/deny-from-outside.yaml beside {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}",
	Samples: "cluster/deny-from-outside.yaml",
	Objects: "shop/more: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}",
	Lines: []string{
		"outside reaches web on tcp/80", "outside does not reach web on tcp/81", "outside does not reach database", "n2 does not reach till",
		"till reaches database", "n1 reaches database", "database reaches outside on tcp/443",
	},
}}
