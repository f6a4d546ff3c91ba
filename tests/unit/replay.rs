//! Faults inside functions of the C library, told as calls.

use super::*;

const RDX: usize = 1;

/// What is told of code that copies `size` bytes from 0x2000 to 0x9000, the first of them at its first instruction.
fn told(code: &[u8], size: usize) -> Option<(usize, Option<usize>, usize)> {
    let mut code = code.to_vec();
    code.resize(code.len() + LONGEST, 0xcc);
    let mut context = Context { pc: code.as_ptr().addr(), ..Context::default() };
    for (number, value) in [(RAX, 0x9000), (RDX, size), (RDI, 0x9000), (RSI, 0x2000)] {
        context.registers[number] = value;
    }
    follow(&context).map(|copied| (copied.destination.get(), copied.source.map(Addr::get), copied.size))
}

#[test]
fn the_rest_of_a_copy_says_how_long_it_is() {
    let cases: &[(&[u8], usize)] = &[
        // mov cl, [rsi]; movzx esi, word [rsi+rdx-2]; mov [rdi+rdx-2], si; mov [rdi], cl; ret
        (&[0x8a, 0x0e, 0x0f, 0xb7, 0x74, 0x16, 0xfe, 0x66, 0x89, 0x74, 0x17, 0xfe, 0x88, 0x0f, 0xc3], 3),
        // lea rcx, [rsi+rdx]; lea r9, [rdi+rdx]; mov si, [rsi]; mov cx, [rcx-2]; mov [rdi], si; mov [r9-2], cx; ret
        (
            &[
                0x48, 0x8d, 0x0c, 0x16, 0x4c, 0x8d, 0x0c, 0x17, 0x66, 0x8b, 0x36, 0x66, 0x8b, 0x49, 0xfe,
                0x66, 0x89, 0x37, 0x66, 0x41, 0x89, 0x49, 0xfe, 0xc3,
            ],
            3,
        ),
        // mov rcx, [rsi+rdx-8]; mov rsi, [rsi]; mov [rdi+rdx-8], rcx; mov [rdi], rsi; ret
        (
            &[
                0x48, 0x8b, 0x4c, 0x16, 0xf8, 0x48, 0x8b, 0x36, 0x48, 0x89, 0x4c, 0x17, 0xf8, 0x48, 0x89,
                0x37, 0xc3,
            ],
            13,
        ),
        // mov rcx, rdx; rep movsb; ret
        (&[0x48, 0x89, 0xd1, 0xf3, 0xa4, 0xc3], 1_000_000),
        // lea rdx, [rdi+rdx-16]; movups xmm1, [rsi]; movups [rdi], xmm1; add rsi, 16; add rdi, 16; cmp rdx, rdi;
        // ja to the first movups; ret: all but what is left over at the end
        (
            &[
                0x48, 0x8d, 0x54, 0x17, 0xf0, 0x0f, 0x10, 0x0e, 0x0f, 0x11, 0x0f, 0x48, 0x83, 0xc6, 0x10,
                0x48, 0x83, 0xc7, 0x10, 0x48, 0x39, 0xfa, 0x77, 0xed, 0xc3,
            ],
            1 << 40,
        ),
    ];
    for (code, size) in cases {
        let Some((destination, source, told)) = told(code, *size) else { panic!("nothing for {size}") };
        assert_eq!((destination, source), (0x9000, Some(0x2000)), "{size}");
        assert!(told == *size || told + 16 == *size, "{size}: {told}");
    }
}

#[test]
fn what_depends_on_data_is_not_told() {
    let cases: &[&[u8]] = &[
        // mov rcx, [rsi]; mov [rdi+rcx], al; ret
        &[0x48, 0x8b, 0x0e, 0x88, 0x04, 0x0f, 0xc3],
        // mov rcx, [rsi]; cmp rcx, rdx; je over it; mov [rdi], al; ret
        &[0x48, 0x8b, 0x0e, 0x48, 0x39, 0xd1, 0x74, 0x02, 0x88, 0x07, 0xc3],
        // mov [rdi], al; mov eax, [rsi]; ret
        &[0x88, 0x07, 0x8b, 0x06, 0xc3],
        // call; ret
        &[0xe8, 0, 0, 0, 0, 0xc3],
        // jmp to itself
        &[0xeb, 0xfe],
        &[],
    ];
    for code in cases {
        assert_eq!(told(code, 64), None, "{code:02x?}");
    }
}

/// Whatever stands there, nothing panics and it comes to an end.
#[test]
fn any_code_is_followed_without_harm() {
    let mut state = 3_u64;
    let mut code = [0; 64];
    for _ in 0..20_000 {
        for byte in &mut code {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        told(&code, 64);
    }
}
