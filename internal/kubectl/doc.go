// Package kubectl is the command line of 'kubectl ringfence', which people ask who can reach whom, and why. It reads and prints; package query answers.
package kubectl
