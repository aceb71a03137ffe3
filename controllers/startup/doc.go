// Package startup takes the startup taint from a node once the node's enforcer has put everything in force since the node's last boot.
package startup
