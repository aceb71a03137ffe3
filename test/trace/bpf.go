package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// program is a classic BPF program.
type program []instruction

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// readProgram reads the form that xt_bpf takes: the number of instructions, and each as "code jt jf k".
func readProgram(text string) (program, error) {
	parts := strings.Split(text, ",")
	var count int
	if _, err := fmt.Sscanf(parts[0], "%d", &count); err != nil || count != len(parts)-1 || count == 0 || count > 64 {
		return nil, fmt.Errorf("%s instructions are announced, there are %d, and 64 are allowed", parts[0], len(parts)-1)
	}
	var p program
	for _, part := range parts[1:] {
		var i instruction
		if n, err := fmt.Sscanf(part, "%d %d %d %d", &i.code, &i.jt, &i.jf, &i.k); err != nil || n != 4 {
			return nil, fmt.Errorf("%q is no instruction", part)
		}
		p = append(p, i)
	}
	return p, nil
}

// matches runs the program on the packet's header: it matches if the program returns anything but 0.
func (prog program) matches(p *Packet) (bool, error) {
	result, err := prog.run(header(p))
	return result != 0, err
}

// The parts of an instruction's code (linux/bpf_common.h).
const (
	classLD, classLDX, classALU, classJMP, classRET, classMISC = 0, 1, 4, 5, 6, 7

	sizeW, sizeH, sizeB                = 0x00, 0x08, 0x10
	modeIMM, modeABS, modeIND, modeMSH = 0x00, 0x20, 0x40, 0xa0
	opJA, opJEQ, opJGT, opJGE, opJSET  = 0x00, 0x10, 0x20, 0x30, 0x40
	opADD, opSUB, opOR, opAND, opXOR   = 0x00, 0x10, 0x40, 0x50, 0xa0
	sourceX, returnA, miscTAX, miscTXA = 0x08, 0x10, 0x00, 0x80
)

// run interprets the program. All jumps go forward, so it ends. A load from behind the packet ends it with 0, as in the kernel.
func (prog program) run(packet []byte) (uint32, error) {
	var a, x uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		operand := i.k
		if i.code&sourceX != 0 {
			operand = x
		}
		switch i.code & 7 {
		case classLD:
			if i.code&0xe0 == modeIMM {
				a = i.k
				continue
			}
			v, inside, err := load(packet, i, x)
			if err != nil || !inside {
				return 0, err
			}
			a = v
		case classLDX:
			switch i.code &^ 7 {
			case modeIMM:
				x = i.k
			case modeMSH | sizeB: // the length of an IPv4 header
				if uint64(i.k) >= uint64(len(packet)) {
					return 0, nil
				}
				x = uint32(packet[i.k]&0xf) * 4
			default:
				return 0, unknown(i)
			}
		case classALU:
			switch i.code & 0xf0 {
			case opADD:
				a += operand
			case opSUB:
				a -= operand
			case opOR:
				a |= operand
			case opAND:
				a &= operand
			case opXOR:
				a ^= operand
			default:
				return 0, unknown(i)
			}
		case classJMP:
			skip, err := jump(i, a, operand)
			if err != nil {
				return 0, err
			}
			pc += skip
		case classRET:
			if i.code&0x18 == returnA {
				return a, nil
			}
			return i.k, nil
		case classMISC:
			switch i.code & 0xf8 {
			case miscTAX:
				x = a
			case miscTXA:
				a = x
			default:
				return 0, unknown(i)
			}
		default:
			return 0, unknown(i)
		}
	}
	return 0, errors.New("program ends without a return")
}

func load(packet []byte, i instruction, x uint32) (value uint32, inside bool, err error) {
	at := uint64(i.k)
	switch i.code & 0xe0 {
	case modeABS:
	case modeIND:
		at += uint64(x)
	default:
		return 0, false, unknown(i)
	}
	if at >= uint64(len(packet)) {
		return 0, false, nil
	}
	rest := packet[at:]
	switch {
	case i.code&0x18 == sizeW && len(rest) >= 4:
		return binary.BigEndian.Uint32(rest), true, nil
	case i.code&0x18 == sizeH && len(rest) >= 2:
		return uint32(binary.BigEndian.Uint16(rest)), true, nil
	case i.code&0x18 == sizeB:
		return uint32(rest[0]), true, nil
	case i.code&0x18 == 0x18:
		return 0, false, unknown(i)
	}
	return 0, false, nil
}

// jump is how many instructions to skip.
func jump(i instruction, a, operand uint32) (int, error) {
	var holds bool
	switch i.code & 0xf0 {
	case opJA:
		return int(i.k), nil
	case opJEQ:
		holds = a == operand
	case opJGT:
		holds = a > operand
	case opJGE:
		holds = a >= operand
	case opJSET:
		holds = a&operand != 0
	default:
		return 0, unknown(i)
	}
	if holds {
		return int(i.jt), nil
	}
	return int(i.jf), nil
}

func unknown(i instruction) error { return fmt.Errorf("instruction %v is not known", i) }

// header is the packet from its network header on.
func header(p *Packet) []byte {
	inner := transport(p)
	if p.Src.Is4() {
		h := make([]byte, 20, 20+len(inner))
		h[0], h[8], h[9] = 0x45, 64, p.Protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(inner)))
		copy(h[12:], p.Src.AsSlice())
		copy(h[16:], p.Dst.AsSlice())
		return append(h, inner...)
	}
	h := make([]byte, 40, 40+len(inner))
	h[0], h[6], h[7] = 0x60, p.Protocol, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(inner)))
	copy(h[8:], p.Src.AsSlice())
	copy(h[24:], p.Dst.AsSlice())
	return append(h, inner...)
}

// transport is the packet behind its network header: of SCTP the common header and the head of the first chunk, INIT or, in mid-stream, DATA.
func transport(p *Packet) []byte {
	switch p.Protocol {
	case icmp, icmpv6:
		return []byte{p.Type, 0, 0, 0, 0, 0, 0, 0}
	case sctp:
		h := make([]byte, 16)
		binary.BigEndian.PutUint16(h[0:], p.SrcPort)
		binary.BigEndian.PutUint16(h[2:], p.DstPort)
		if !p.MidStream {
			h[12] = 1
		}
		return h
	}
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h[0:], p.SrcPort)
	binary.BigEndian.PutUint16(h[2:], p.DstPort)
	return h
}
