// Package install puts the enforcers' objects there and keeps them, where the installer of the controller cannot: the Operator Lifecycle Manager.
package install
