package arrival

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// Pods is who is asked, through the socket.
type Pods interface {
	Add(context.Context, Pod) error
	Check(context.Context, Pod) error
	Delete(container string)
	Collect(containers []string)
}

var _ Pods = (*Table)(nil)

// Server answers the CNI plugin of its node.
type Server struct {
	Socket string
	Pods   Pods
	Log    logr.Logger
}

// requestTime is how long a request may take to be read, and its answer to be written: both are small, and the other side is on the same machine.
const requestTime = 5 * time.Second

// Run serves until ctx ends. A socket that cannot be opened does not end it: the enforcer has better to do, and the plugin says that nobody answers.
func (s *Server) Run(ctx context.Context) {
	const pause = 5 * time.Second
	said := ""
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			s.Log.Info("pods on this node cannot be policed from their first packet: tried again", "error", text, "every", pause.String())
			said = text
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// serve answers on a socket that takes the place of an earlier enforcer's at once: at no moment there is none.
func (s *Server) serve(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o700); err != nil {
		return fmt.Errorf("making the directory of the socket: %w", err)
	}
	fresh := s.Socket + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing what an earlier enforcer left: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return fmt.Errorf("opening the socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // the name may be a newer enforcer's by then
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer func() { _ = l.Close() }()
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, s.Socket)); err != nil {
		return fmt.Errorf("opening the socket: %w", err)
	}
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return fmt.Errorf("accepting on the socket: %w", err)
		}
		conns.Go(func() { s.handle(ctx, conn) })
	}
}

// Remove removes what an enforcer that has ended leaves: its socket, the file beside it and the others of these names, and their directory if nothing else is
// there. As long as one listens, all stays.
func Remove(socket string, others ...string) error {
	if conn, err := net.DialTimeout("unix", socket, requestTime); err == nil {
		return conn.Close()
	}
	dir := filepath.Dir(socket)
	state := filepath.Join(dir, StateFile)
	files := []string{socket, socket + ".new", state, state + ".new"}
	for _, name := range others {
		files = append(files, filepath.Join(dir, name))
	}
	var errs []error
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing what an enforcer left: %w", err))
		}
	}
	_ = os.Remove(dir) // if it is empty
	return errors.Join(errs...)
}

// handle answers one request. Who hangs up is not waited for. Who waits while we end is hung up on, to ask the next enforcer.
func (s *Server) handle(serving context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(serving)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return
	}
	var r Request
	if err := readLine(conn, &r); err != nil {
		if serving.Err() == nil {
			s.answer(conn, fmt.Errorf("reading the request: %w", err))
		}
		return
	}
	if err := r.validate(); err != nil {
		s.answer(conn, err)
		return
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	var hangup sync.WaitGroup
	hangup.Go(func() {
		_, _ = conn.Read(make([]byte, 1)) // there is no second request: it returns when the other side, or we, are done
		cancel()
	})
	if err := s.do(ctx, r); err == nil || serving.Err() == nil {
		s.answer(conn, err)
	}
	_ = conn.Close() // ends the wait for the other side
	hangup.Wait()
}

func (s *Server) do(ctx context.Context, r Request) error {
	ctx, cancel := context.WithTimeout(ctx, r.wait())
	defer cancel()
	switch r.Verb {
	case Add:
		return s.Pods.Add(ctx, r.Pod)
	case Check:
		return s.Pods.Check(ctx, r.Pod)
	case Delete:
		s.Pods.Delete(r.Pod.Container)
	case Collect:
		s.Pods.Collect(r.Containers)
	}
	return nil
}

func (s *Server) answer(conn net.Conn, err error) {
	a := Answer{Version: protocolVersion}
	if err != nil {
		a.Error = err.Error()
	}
	if conn.SetWriteDeadline(time.Now().Add(requestTime)) == nil {
		_ = writeLine(conn, a) // who does not take it asks again
	}
}
