// Package cni is ringfence as a CNI plugin, and what installs it on a node.
//
// The plugin is the last of a chain. It makes no interface and changes no address: on ADD it hands what the plugins before it have made to the
// node's enforcer (package arrival), and returns their result unchanged when the pod's policy is in force. Containers that are not pods
// pass untouched, and pods on the host network never come here.
//
// Where the pod's traffic does not pass the host's netfilter (macvlan, ipvlan, a network card that moves into the pod) no rule of the host's can
// hold it, and the plugin says so instead of letting the pod start in the belief that it is policed.
//
// Invariants:
//   - every verb ends within the configured time, whatever the enforcer does;
//   - DEL and GC never fail, whatever they are given: the plugins before ours would not be called, and keep the pod's addresses for ever;
//   - our element is in a list only while the container runtime can run our program, as far as can be seen: a runtime that misses one program of a list
//     neither starts a pod nor ends one;
//   - of the CNI directories only our own element of the first network configuration, a list that stands for it where it is a single plugin's
//     (*.00-ringfence.conflist), our program, and files named .ringfence-* are ever ours; all changes are renames, and undone by [Uninstall] to the byte;
//   - nobody is fought with: how often a configuration is changed that others change too is bounded.
package cni
